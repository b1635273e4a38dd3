//! `wisp compile`: the one process with a compiler in it.

use std::io::{IsTerminal, Read, Write};

use anyhow::{Context, bail};
use clap::Args;

/// Compile a Wasm program for this machine
///
/// Reads a core module or component on stdin and writes AOT code to stdout.
/// The shim runs this for programs that are not in its cache; by hand, use
/// `wisp run`. The code is native: load it only where you made it.
///
/// Example: wisp compile < app.wasm > app.cwasm
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Compile {}

impl Compile {
    pub fn run(&self) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        if stdout.is_terminal() {
            bail!("stdout is a terminal; redirect it to a file");
        }
        let mut program = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut program)
            .context("read the program from stdin")?;
        let code = wisp_aot::compile(&program)?;
        stdout
            .write_all(&code)
            .and_then(|()| stdout.flush())
            .context("write the code to stdout")
    }
}
