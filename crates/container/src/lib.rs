//! One container's life.
//!
//! Two processes use this crate. The daemon, which must stay small, uses
//! [`launch`](Launch), [`Bundle`] and [`cgroup`]: it starts the init role, asks
//! it to go, and cleans up. The init role ([`init::main`]) does everything
//! expensive: it mounts the root file system, chooses the program, and then
//! either maps its AOT code, enters the container and waits for `Start` there,
//! or has libcontainer make a container for a native program.

pub mod bundle;
pub mod cgroup;
pub mod control;
mod devices;
mod error;
pub mod hooks;
pub mod init;
mod launch;
mod mounts;
pub mod pidfd;
mod reports;
mod seccomp;
mod shares;
pub mod trace;

pub use bundle::Bundle;
pub use control::{CreateRequest, Created, ExecRequest, ProgramKind, RootfsMount};
pub use error::ContainerError;
pub use init::guest_of;
pub use launch::{Launch, Stdio, launch, launch_exec};
pub use oci_spec::runtime::{LinuxResources, Process};
pub use shares::{Share, Shares};
