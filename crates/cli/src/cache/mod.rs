//! `wisp cache`: looks after the compiled programs.

mod amount;
mod list;
mod prune;
mod verify;
mod warm;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use wisp_config::Config;

const EXAMPLES: &str = "\
Examples:
  wisp cache ls
  wisp cache verify --remove
  wisp cache prune --max-size 500MiB
  wisp cache warm -n k8s.io registry.example.com/app:1
  wisp cache watch -n k8s.io

The directory is that of the settings (/etc/wisp/config.toml, or the file that
WISP_CONFIG names).";

/// Look after the programs that are compiled on this node
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(list::List),
    Verify(verify::Verify),
    Prune(prune::Prune),
    Warm(warm::Warm),
    Watch(watch::Watch),
}

impl Cache {
    /// Does what was asked for.
    ///
    /// # Errors
    /// What keeps it from being done at all.
    pub fn run(self) -> Result<ExitCode> {
        let config = Config::load(None)?;
        match self.command {
            Command::Ls(list) => list.run(&config),
            Command::Verify(verify) => verify.run(&config),
            Command::Prune(prune) => prune.run(&config),
            Command::Warm(warm) => warm.run(&config),
            Command::Watch(watch) => watch.run(&config),
        }
    }
}

/// The files in the cache, least recently used first.
fn entries(cache: &wisp_aot::Cache) -> Result<Vec<wisp_aot::Entry>> {
    cache
        .entries()
        .with_context(|| format!("cache directory {}", cache.dir().display()))
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // Who closes the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}

/// Where containerd is, as `ctr` has it.
#[derive(Debug, Clone, Args)]
pub struct Containerd {
    /// containerd's gRPC socket [default: what CONTAINERD_ADDRESS says, else
    /// /run/containerd/containerd.sock, or where k3s, k0s or MicroK8s have it]
    #[arg(short, long, value_name = "PATH")]
    address: Option<String>,
}

impl Containerd {
    /// What was asked for, or what is usual.
    pub fn address(&self) -> String {
        let said = self.address.clone();
        said.or_else(|| variable("CONTAINERD_ADDRESS"))
            .unwrap_or_else(|| {
                let usual = wisp_node::containerd::usual_socket();
                usual.to_string_lossy().into_owned()
            })
    }
}

/// A variable of the environment that is not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
