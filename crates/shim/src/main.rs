//! `containerd-shim-wisp-v1`: what containerd executes, in one of these roles.
//!
//! | invoked as | role |
//! |---|---|
//! | `… start` | finds or starts the pod's daemon, prints its address, ends |
//! | `… delete` | cleans up after a daemon that died, ends |
//! | `-info` | describes the runtime, ends |
//! | `-v` | prints versions, ends |
//! | `serve FD …` | the daemon: the task service of one pod (internal) |
//! | `init FD` | creates a container and becomes its guest (internal) |
//! | `exec FD` | adds a process to a container (internal) |
//! | `train FILE …` | serves without a container (only with the feature `train`) |

mod bootstrap;
mod containerd_version;
mod delete;
mod info;
mod orphans;
mod serve;
mod start;
#[cfg(feature = "train")]
mod train;

use std::process::ExitCode;

use anyhow::{Context, bail};
use containerd_shim::Flags;
use wisp_aot::{Key, WASMTIME_VERSION};
use wisp_copy as _;
use wisp_heap::Heap;

/// The name containerd knows the runtime by.
const RUNTIME: &str = "io.containerd.wisp.v1";

#[global_allocator]
static HEAP: Heap = Heap;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            // containerd shows what a role prints when it fails.
            eprintln!("containerd-shim-wisp-v1: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let rest = args.get(1..).unwrap_or_default();
    match rest.first().map(String::as_str) {
        Some(role @ ("init" | "exec")) => {
            let control = descriptor(rest, role)?;
            let code = match role {
                "init" => wisp_container::init::main(control),
                _ => wisp_container::init::exec::main(control),
            };
            let code = code.map_err(|error| anyhow::anyhow!("{role}: {error}"))?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
        }
        Some("serve") => {
            let listener = descriptor(rest, "serve")?;
            let flags = parse(rest.get(2..).unwrap_or_default())?;
            return serve::run(listener, &flags);
        }
        #[cfg(feature = "train")]
        Some("train") => return train::run(rest.get(1..).unwrap_or_default()),
        _ => {}
    }
    let flags = parse(rest)?;
    if flags.version {
        // In one piece: who reads it may stop with the first.
        let versions = format!(
            "containerd-shim-wisp-v1:\n  Runtime: {RUNTIME}\n  Version: {}\n  \
             Wasmtime: {WASMTIME_VERSION}\n  AOT key: {}\n",
            env!("CARGO_PKG_VERSION"),
            Key::here()
        );
        print!("{versions}");
        return Ok(ExitCode::SUCCESS);
    }
    if flags.info {
        info::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    match flags.action.as_str() {
        "start" => start::run(&flags)?,
        "delete" => delete::run(&flags)?,
        "" => bail!(
            "no action; containerd runs this program as `start` and `delete`. \
             To run a component by hand, use `wisp run` or `ctr run --runtime {RUNTIME}`"
        ),
        other => bail!("unknown action {other:?}: expected `start` or `delete`"),
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(args: &[String]) -> anyhow::Result<Flags> {
    containerd_shim::parse(args).context("command line")
}

fn descriptor(rest: &[String], role: &str) -> anyhow::Result<i32> {
    rest.get(1)
        .and_then(|text| text.parse().ok())
        .filter(|fd| *fd > 2)
        .with_context(|| format!("role `{role}` is started by wisp itself, with a descriptor"))
}
