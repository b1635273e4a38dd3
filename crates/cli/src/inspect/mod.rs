//! `wisp inspect`.

mod against;
mod needs;
mod program;
mod suggest;
mod target;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use self::against::Verdict;
use self::program::Program;
use self::target::Inspected;
use crate::cache::Containerd;
use wisp_config::Config;

const EXAMPLES: &str = "\
Examples:
  wisp inspect app.wasm
  wisp inspect --json - < app.wasm
  wisp inspect --suggest app.tar
  wisp inspect -n k8s.io registry.example.com/app:1
  wisp inspect --against deployment.yaml app.wasm

With --against, the exit code is 1 if something is missing. The node's policy
counts (see /etc/wisp/config.toml).";

/// Tell what a Wasm program or image is made for, imports and needs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// A program: a component or core module, `-` for standard input. Or an
    /// image: a folder or archive with an OCI layout, what `docker save` writes,
    /// or the name of one that containerd has
    #[arg(value_name = "PROGRAM|IMAGE")]
    target: PathBuf,
    #[command(flatten)]
    containerd: Containerd,
    /// The image's namespace [default: default, or what CONTAINERD_NAMESPACE
    /// says]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
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
        let inspected = target::read(&self.target, &self.containerd, self.namespace.as_deref())?;
        if let Some(file) = &self.against {
            return self.compare(&inspected, file);
        }
        let text = if self.json {
            json(&inspected)? + "\n"
        } else if self.suggest {
            inspected.iter().map(suggested).collect()
        } else {
            inspected
                .iter()
                .map(|one| describe(&one.title, &one.program))
                .collect()
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn compare(&self, inspected: &[Inspected], file: &Path) -> Result<ExitCode> {
        let policy = Config::load(None)?.policy();
        let pods = against::pods(file)?;
        let verdicts: Vec<Verdict> = inspected
            .iter()
            .flat_map(|one| {
                let verdict = |pod| against::compare(&one.program, pod, &policy);
                pods.iter().map(verdict).map(|verdict| Verdict {
                    program: one.image.as_ref().map(|_| one.title.clone()),
                    ..verdict
                })
            })
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
}

/// One program as an object; those of images as a list.
fn json(inspected: &[Inspected]) -> Result<String> {
    Ok(match inspected {
        [one] if one.image.is_none() => serde_json::to_string_pretty(&one.program)?,
        all => serde_json::to_string_pretty(all)?,
    })
}

fn suggested(one: &Inspected) -> String {
    let yaml = suggest::yaml(&suggest::suggest(&one.program));
    match one.image {
        Some(_) => format!("# {}\n{yaml}", one.title),
        None => yaml,
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
    let titles = [Some(verdict.pod.clone()), verdict.program.clone()];
    let titles: Vec<String> = titles
        .into_iter()
        .flatten()
        .filter(|t| !t.is_empty())
        .collect();
    if !titles.is_empty() {
        text.push_str(&format!("{}\n", titles.join(", ")));
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
