//! `wisp inspect`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::program::Program;

const EXAMPLES: &str = "\
Examples:
  wisp inspect app.wasm
  wisp inspect --json - < app.wasm";

/// Tell what a Wasm program is made for, imports and needs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// The program: a component or core module; `-` is standard input
    #[arg(value_name = "FILE")]
    program: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints what there is to tell.
    ///
    /// # Errors
    /// What cannot be read or is no Wasm.
    pub fn run(&self) -> Result<()> {
        let name = self.program.display().to_string();
        let bytes = self.bytes().with_context(|| format!("read {name}"))?;
        let program = Program::read(&bytes).with_context(|| name.clone())?;
        let text = if self.json {
            serde_json::to_string_pretty(&program)? + "\n"
        } else {
            describe(&name, &program)
        };
        match io::stdout().lock().write_all(text.as_bytes()) {
            // Who closes the pipe has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.context("write to standard output"),
        }
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.program == Path::new("-") {
            io::stdin().lock().read_to_end(&mut bytes)?;
        } else {
            File::open(&self.program)?.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

fn describe(name: &str, program: &Program) -> String {
    let mut text = format!("{name}\n");
    let mut line = |title: &str, lines: &[String]| {
        for (at, words) in lines.iter().enumerate() {
            let title = if at == 0 { title } else { "" };
            text.push_str(&format!("  {title:<9}{words}\n"));
        }
    };
    let or_none = |names: &[String]| match names {
        [] => vec!["none".to_owned()],
        names => names.to_vec(),
    };
    line(
        "kind",
        &[format!("{}, {} bytes", program.kind, program.size)],
    );
    let world = program.world.clone();
    line("world", &[world.unwrap_or_else(|| "unsupported".into())]);
    line("WASI", &[or_none(&program.wasi).join(", ")]);
    line("exports", &or_none(&program.exports));
    line("imports", &or_none(&program.imports));
    let needs: Vec<String> = program
        .needs
        .iter()
        .map(|need| (*need).to_owned())
        .collect();
    line("may use", &or_none(&needs));
    line("problem", &program.problems);
    text
}
