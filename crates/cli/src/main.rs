//! `wisp`: makes images of Wasm programs, looks into them, runs them without
//! containerd, and compiles them for the shim.

#![forbid(unsafe_code)]

mod cache;
mod compile;
mod doctor;
mod inspect;
mod node;
mod output;
mod pack;
mod run;
mod trace;
mod versions;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use wisp_aot::Compiler;
use wisp_config::Config;
use wisp_copy as _;
use wisp_heap::Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// Runs WebAssembly in containers: pack an image, look into a program, run it.
#[derive(Debug, Parser)]
#[command(name = "wisp", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Pack(pack::Pack),
    Inspect(inspect::Inspect),
    Run(run::Run),
    Cache(cache::Cache),
    Doctor(doctor::Doctor),
    Node(node::Node),
    Compile(compile::Compile),
    Trace(trace::Trace),
}

fn main() -> ExitCode {
    if versions::asked() {
        return match versions::print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        };
    }
    let result = match Cli::parse().command {
        Command::Pack(pack) => pack.run(),
        Command::Inspect(inspect) => match inspect.run() {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Trace(trace) => trace.run(),
        Command::Run(run) => match run.run() {
            Ok(code) => std::process::exit(code),
            Err(error) => {
                complain(&error);
                return ExitCode::from(run::NOT_STARTED);
            }
        },
        Command::Cache(cache) => match cache.run() {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Doctor(doctor) => match doctor.run() {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Node(node) => match node.run() {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Compile(compile) => match compile.run() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => {
                // Who runs the compiler says so when it repeats this.
                eprintln!("{}", text(&error));
                return ExitCode::FAILURE;
            }
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// The compiler that the settings name, else this very program, whatever it is
/// called.
fn compiler(config: &Config) -> anyhow::Result<Compiler> {
    let mut config = config.clone();
    if config.compiler.path.is_none() {
        let own = std::env::current_exe().context("find wisp itself")?;
        config.compiler.path = Some(own);
    }
    Ok(Compiler::from_config(&config))
}

fn complain(error: &anyhow::Error) {
    eprintln!("wisp: {}", text(error));
}

/// An error with those causes that its text does not have yet.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{colon}{cause}");
        }
    }
    text
}
