//! Brings wisp to a node and takes it away again.
//!
//! [`install`] puts the programs where containerd can run them, tells
//! containerd's configuration of the runtime, and proves that pods reach it;
//! [`uninstall`] takes away what was brought and nothing else. Both can be
//! interrupted at any moment and called again: each file is there whole or not
//! at all, and what was changed is [recorded](record) before it is changed.
//!
//! A new configuration is never trusted: containerd itself reads it before it
//! takes the old one's place, and it must mean the same as before but for the
//! runtime.
#![forbid(unsafe_code)]

mod change;
#[cfg(test)]
mod corpus;
mod edit;
mod error;
mod files;
mod install;
pub mod layout;
mod lock;
#[cfg(test)]
mod machine;
mod meaning;
#[cfg(test)]
mod places_tests;
mod programs;
pub mod record;
mod steps;
mod uninstall;
mod validate;

pub use change::How;
pub use error::InstallError;
pub use install::install;
pub use lock::wait_for_others;
pub use programs::{Found, in_use};
pub use steps::{Done, Node, Place, State, Step, Watch, status};
pub use uninstall::{Offline, uninstall};

/// The name of the runtime in containerd's configuration, which a RuntimeClass
/// has as its handler.
pub const HANDLER: &str = "wisp";
/// What containerd is told to run.
pub const RUNTIME_TYPE: &str = "io.containerd.wisp.v1";
/// The shim.
pub const SHIM: &str = "containerd-shim-wisp-v1";
/// Everything else: the compiler, and this installer.
pub const CLI: &str = "wisp";
/// The annotations that pods may give to their containers.
pub const ANNOTATIONS: &str = "io.wisp.*";
