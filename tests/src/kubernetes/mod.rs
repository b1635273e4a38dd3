//! Kubernetes itself, from the one program that `tests/get-kubernetes.sh` builds:
//! an API server with nothing behind it ([`Control`]), and what makes a cluster
//! of it ([`Cluster`]).

mod authority;
mod containerd;
mod control;
mod kubectl;
mod node;
mod server;

pub use authority::Authority;
pub use control::Control;
pub use kubectl::Kubectl;
pub use node::{Cluster, NODE};
pub use server::Server;

use crate::paths;
use std::path::PathBuf;
use std::process::Command;

/// The program.
pub fn program() -> PathBuf {
    paths::repository().join("target/tools/bin/kubernetes")
}

/// Why it cannot be run, if so.
pub fn missing() -> Option<String> {
    let program = program();
    (!program.exists()).then(|| {
        format!(
            "{} is missing: run tests/get-kubernetes.sh",
            program.display()
        )
    })
}

/// One of the programs in it.
pub fn called(name: &str) -> Command {
    let mut command = Command::new(program());
    command.arg(name);
    command
}
