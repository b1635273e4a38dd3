//! Becoming a program of the node: with its root directory and its processes,
//! though the file may be one of the pod's.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

/// What is run where.
#[derive(Debug, Args)]
pub struct Enter {
    /// The directory that becomes the root
    pub root: PathBuf,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<std::ffi::OsString>,
}

impl Enter {
    /// Does it; returns only if that fails.
    ///
    /// # Errors
    /// What is wrong with the root.
    pub fn run(&self) -> Result<()> {
        let shown = self.root.display();
        nix::unistd::chroot(&self.root).with_context(|| {
            format!("enter {shown}: the pod must be privileged and have the node's / there")
        })?;
        std::env::set_current_dir("/").with_context(|| format!("enter {shown}"))?;
        let own = std::fs::read_link("/proc/self")
            .with_context(|| format!("{shown} has no /proc: mount the node's / with all below"))?;
        ensure!(
            own.to_str() == Some(&std::process::id().to_string()),
            "the node's processes are not seen from here: the pod must have hostPID: true"
        );
        let (program, arguments) = self.command.split_first().context("no program")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("run {}", program.to_string_lossy()))
    }
}
