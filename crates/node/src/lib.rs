//! A node as wisp finds it: its kernel, its cgroups, its containerd with the
//! configuration that it runs with, its kubelet, the shim; and what of that is
//! in wisp's way.
//!
//! Everything here only looks. What it finds out is in plain structures;
//! [`checks`] turns them into [`Finding`]s, each with a way out.

pub mod cgroups;
pub mod checks;
pub mod containerd;
pub mod finding;
pub mod kernel;
pub mod kubelet;
pub mod settings;
pub mod shim;

pub use containerd::{Containerd, Daemon};
pub use finding::{Finding, Status};
pub use settings::Settings;

/// The name by which containerd is told of the runtime.
pub const RUNTIME_TYPE: &str = "io.containerd.wisp.v1";
/// The program behind it.
pub const SHIM: &str = "containerd-shim-wisp-v1";
/// The annotations that pods may give to their containers.
pub const ANNOTATIONS: &str = "io.wisp.*";
