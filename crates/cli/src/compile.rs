//! `wisp compile`: the one process with a compiler in it.

use std::io::IsTerminal;

use anyhow::bail;
use clap::Args;
use wisp_aot::{CompilerLimits, Confine};

/// Compile a Wasm program for this machine
///
/// Reads a core module or component on stdin and writes AOT code to stdout.
/// The shim runs this for programs that are not in its cache; by hand, use
/// `wisp run`. The code is native: load it only where you made it.
///
/// The compiler gives up files, network, privileges and almost all system calls
/// before it reads the program.
///
/// Example: wisp compile < app.wasm > app.cwasm
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Compile {
    /// How much of its confinement there must be: full, or, for users whom the
    /// system gives no namespaces, possible
    #[arg(long, value_name = "full|possible", default_value = "full")]
    confine: Confine,
    /// The largest program; as all limits, that of the default settings
    #[arg(long, value_name = "MIB")]
    max_program_mib: Option<u64>,
    /// The largest code
    #[arg(long, value_name = "MIB")]
    max_code_mib: Option<u64>,
    /// The most memory
    #[arg(long, value_name = "MIB")]
    memory_mib: Option<u64>,
    /// How many threads compile
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,
    /// The most time of all processors together
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds: Option<u64>,
}

impl Compile {
    pub fn run(&self) -> anyhow::Result<()> {
        if std::io::stdout().is_terminal() {
            bail!("stdout is a terminal; redirect it to a file");
        }
        let default = CompilerLimits::default();
        let limits = CompilerLimits {
            program_mib: self.max_program_mib.unwrap_or(default.program_mib),
            code_mib: self.max_code_mib.unwrap_or(default.code_mib),
            memory_mib: self.memory_mib.unwrap_or(default.memory_mib),
            threads: self.threads.unwrap_or(default.threads),
            cpu_seconds: self.cpu_seconds.unwrap_or(default.cpu_seconds),
        };
        wisp_aot::compile_confined(&limits, self.confine).map_err(anyhow::Error::msg)
    }
}
