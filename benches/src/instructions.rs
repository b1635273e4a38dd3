//! Two builds compared by the instructions that they execute.

use crate::counter;
use anyhow::{Context, Result, anyhow, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wisp_tests::paths;

/// How many times more instructions are worth a word.
const NOTABLE: f64 = 1.01;

/// What each build is asked to do.
#[derive(Debug, clap::Args)]
pub struct Instructions {
    /// The directory with the shim and `wisp`
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// The same of the build to compare with
    #[arg(long)]
    baseline: PathBuf,
}

/// A command that every version of wisp has.
struct Case {
    name: &'static str,
    program: &'static str,
    arguments: Vec<PathBuf>,
}

impl Instructions {
    /// Counts both builds and prints the ratios.
    ///
    /// # Errors
    /// When a program is missing or fails.
    pub fn compare(&self) -> Result<()> {
        let work = tempfile::Builder::new().prefix("wisp-bench-").tempdir()?;
        println!(
            "{:<36} {:>12} {:>12} {:>7}",
            "instructions", "before", "now", "ratio"
        );
        let mut more = Vec::new();
        for case in cases()? {
            let (before, now) = std::thread::scope(|scope| {
                let before = scope.spawn(|| {
                    counter::on_one_cpu(0)?;
                    count(&self.baseline, &case, &work.path().join("before"))
                });
                let now = scope.spawn(|| {
                    counter::on_one_cpu(1)?;
                    count(&self.binaries, &case, &work.path().join("now"))
                });
                (before.join(), now.join())
            });
            let (before, now) = (counted(before)?, counted(now)?);
            let ratio = now as f64 / before as f64;
            println!("{:<36} {before:>12} {now:>12} {ratio:>7.3}", case.name);
            if ratio > NOTABLE {
                more.push(case.name);
            }
        }
        if !more.is_empty() {
            println!("more than before: {}", more.join("; "));
        }
        Ok(())
    }
}

fn cases() -> Result<Vec<Case>> {
    let hello = paths::guest("hello")?;
    Ok(vec![
        Case {
            name: "containerd-shim-wisp-v1 -info",
            program: "containerd-shim-wisp-v1",
            arguments: vec!["-info".into()],
        },
        Case {
            name: "wisp run hello.wasm, compiled before",
            program: "wisp",
            arguments: vec!["run".into(), hello.clone()],
        },
        Case {
            name: "wisp inspect hello.wasm",
            program: "wisp",
            arguments: vec!["inspect".into(), hello],
        },
    ])
}

fn counted(count: std::thread::Result<Result<u64>>) -> Result<u64> {
    count.map_err(|_| anyhow!("a count did not end"))?
}

/// Runs a case once so that its program is compiled, and once to count.
fn count(binaries: &Path, case: &Case, work: &Path) -> Result<u64> {
    std::fs::create_dir_all(work)?;
    let config = work.join("wisp.toml");
    std::fs::write(
        &config,
        format!("[cache]\ndir = {:?}\n", work.join("aot").display()),
    )?;
    let program = binaries.join(case.program);
    let mut command = Command::new(&program);
    command.args(&case.arguments).env("WISP_CONFIG", &config);
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(status.success(), "{command:?}: {status}");
    counter::instructions(&command)
}
