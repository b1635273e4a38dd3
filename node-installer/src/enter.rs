//! Becoming a program of the node: with its root directory and its processes,
//! though the file may be one of the pod's.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::say;

/// How often it is looked whether a program is installed.
const PACE: Duration = Duration::from_secs(2);

/// What is run where.
#[derive(Debug, Args)]
pub struct Enter {
    /// Wait until the program is there and says that it is of this version
    #[arg(long)]
    pub until_installed: bool,
    /// The directory that becomes the root
    pub root: PathBuf,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
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
        if self.until_installed {
            wait_for(program);
        }
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("run {}", program.to_string_lossy()))
    }
}

fn wait_for(program: &OsStr) {
    let wanted = env!("CARGO_PKG_VERSION");
    let mut told = false;
    while !is_of_version(program, wanted) {
        if !told {
            let program = program.to_string_lossy();
            say(&format!("waiting for {program} of version {wanted}"));
            told = true;
        }
        std::thread::sleep(PACE);
    }
}

fn is_of_version(program: &OsStr, wanted: &str) -> bool {
    let said = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    said.is_ok_and(|said| {
        let text = String::from_utf8_lossy(&said.stdout);
        let first = text.lines().next().unwrap_or_default();
        first.split(' ').nth(1) == Some(wanted)
    })
}
