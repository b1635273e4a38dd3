//! `wisp inspect`.

mod against;
mod needs;
mod program;
mod suggest;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use self::against::Verdict;
use self::program::Program;
use wisp_config::Config;

const EXAMPLES: &str = "\
Examples:
  wisp inspect app.wasm
  wisp inspect --json - < app.wasm
  wisp inspect --suggest app.wasm
  wisp inspect --against deployment.yaml app.wasm

With --against, the exit code is 1 if something is missing. The node's policy
counts (see /etc/wisp/config.toml).";

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
    /// Print the annotations that give the program what it imports, to paste
    #[arg(long, conflicts_with_all = ["json", "against"])]
    suggest: bool,
    /// Say what the pods in this file would give the program: Kubernetes
    /// objects (YAML or JSON) or a map of annotations
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

impl Inspect {
    /// Prints what there is to tell; answers the exit code.
    ///
    /// # Errors
    /// What cannot be read or is no Wasm.
    pub fn run(&self) -> Result<ExitCode> {
        let name = self.program.display().to_string();
        let bytes = self.bytes().with_context(|| format!("read {name}"))?;
        let program = Program::read(&bytes).with_context(|| name.clone())?;
        if let Some(file) = &self.against {
            return self.compare(&program, file);
        }
        let text = if self.json {
            serde_json::to_string_pretty(&program)? + "\n"
        } else if self.suggest {
            suggest::yaml(&suggest::suggest(&program))
        } else {
            describe(&name, &program)
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn compare(&self, program: &Program, file: &Path) -> Result<ExitCode> {
        let policy = Config::load(None)?.policy();
        let verdicts: Vec<Verdict> = against::pods(file)?
            .iter()
            .map(|pod| against::compare(program, pod, &policy))
            .collect();
        let text = if self.json {
            serde_json::to_string_pretty(&verdicts)? + "\n"
        } else {
            verdicts.iter().map(tell).collect()
        };
        print(&text)?;
        let missing = verdicts.iter().any(|verdict| !verdict.missing.is_empty());
        Ok(if missing {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
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

fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Who closes the pipe has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}

fn tell(verdict: &Verdict) -> String {
    let mut text = String::new();
    if !verdict.pod.is_empty() {
        text.push_str(&format!("{}\n", verdict.pod));
    }
    for (title, lines) in [
        ("missing", &verdict.missing),
        ("granted", &verdict.granted),
        ("unused", &verdict.unused),
    ] {
        for line in lines {
            text.push_str(&format!("  {title:<9}{line}\n"));
        }
    }
    text
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
        .map(|need| need.words().to_owned())
        .collect();
    line("may use", &or_none(&needs));
    line("problem", &program.problems);
    text
}
