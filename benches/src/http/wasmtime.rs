//! `wasmtime serve`.

use crate::http::cases::{AT_ONCE, Case, Instances};
use crate::http::servers::reuse;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `wasmtime` with some flags.
#[derive(Clone, Debug)]
pub struct Wasmtime {
    pub program: PathBuf,
    pub way: Way,
}

/// How it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it comes.
    Plain,
    /// With the flags that make it fastest.
    Tuned,
    /// With those, and a limit to how long a request may take, as wisp has one: the
    /// guest's code asks again and again whether it has come.
    Timeout,
}

impl Way {
    /// All, with their names in tables and formulas.
    pub const ALL: [(&str, Self); 3] = [
        ("wasmtime", Self::Plain),
        ("wasmtime-tuned", Self::Tuned),
        ("wasmtime-timeout", Self::Timeout),
    ];
}

/// What an instance has written stays for the next one, for as many as there may
/// be, and the kernel says what it was.
const TUNED: &[&str] = &[
    "-Opooling-allocator=y",
    "-Opooling-pagemap-scan=y",
    "-Opooling-memory-keep-resident=1048576",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-async-stack-keep-resident=16384",
    "-Opooling-max-unused-warm-slots=1000",
];

/// The limit that wisp's requests have if nobody says otherwise, and what code has to be
/// compiled with for it: `serve` takes that from the limit, `compile` does not.
const TIMEOUT: &[&str] = &["-Wepoch-interruption=y", "-Wtimeout=60s"];

impl Wasmtime {
    fn flags(&self) -> impl Iterator<Item = &'static str> {
        let (tuned, timeout): (&[&str], &[&str]) = match self.way {
            Way::Plain => (&[], &[]),
            Way::Tuned => (TUNED, &[]),
            Way::Timeout => (TUNED, TIMEOUT),
        };
        tuned.iter().chain(timeout).copied()
    }

    /// Compiles a component once, as all contestants have theirs compiled before.
    ///
    /// # Errors
    /// What it said.
    pub fn compile(&self, component: &Path, dir: &Path) -> Result<PathBuf> {
        let name = component.file_stem().unwrap_or_default().to_string_lossy();
        let compiled = dir.join(format!("{name}-{:?}.cwasm", self.way));
        if compiled.exists() {
            return Ok(compiled);
        }
        let output = Command::new(&self.program)
            .arg("compile")
            .args(self.flags())
            .arg("-o")
            .arg(&compiled)
            .arg(component)
            .output()
            .context("wasmtime compile")?;
        ensure!(
            output.status.success(),
            "wasmtime compile: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(compiled)
    }

    /// Serves what was compiled.
    pub fn serve(&self, case: &Case, address: SocketAddr, compiled: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "-Scli", "--allow-precompiled", "--addr"])
            .arg(address.to_string())
            .arg(format!("--max-instance-reuse-count={}", reuse(case)));
        let at_once = match case.instances {
            Instances::Shared => AT_ONCE,
            Instances::Fresh | Instances::Reused => 1,
        };
        command.arg(format!("--max-instance-concurrent-reuse-count={at_once}"));
        command.args(self.flags()).arg(compiled);
        command
    }
}
