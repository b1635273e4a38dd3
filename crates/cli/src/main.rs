//! `wisp`: makes images of Wasm programs, looks into them, runs them without
//! containerd, and compiles them for the shim.

#![forbid(unsafe_code)]

mod compile;
mod output;
mod pack;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Compile(compile::Compile),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Compile(compile) => compile.run().map(|()| ExitCode::SUCCESS),
        Command::Pack(pack) => pack.run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("wisp: {error:#}");
        ExitCode::FAILURE
    })
}
