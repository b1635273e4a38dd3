//! `wasmtime serve`.

use crate::http::cases::{AT_ONCE, Case, Instances};
use crate::http::servers::reuse;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `wasmtime`, as it comes or with the flags that make it fastest.
#[derive(Clone, Debug)]
pub struct Wasmtime {
    pub program: PathBuf,
    pub tuned: bool,
}

/// What an instance has written stays for the next one, for as many as there may
/// be, and the kernel says what it was.
const TUNED: [&str; 6] = [
    "-Opooling-allocator=y",
    "-Opooling-pagemap-scan=y",
    "-Opooling-memory-keep-resident=1048576",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-async-stack-keep-resident=16384",
    "-Opooling-max-unused-warm-slots=1000",
];

impl Wasmtime {
    fn flags(&self) -> &'static [&'static str] {
        if self.tuned { &TUNED } else { &[] }
    }

    /// Compiles a component once, as all contestants have theirs compiled before.
    ///
    /// # Errors
    /// What it said.
    pub fn compile(&self, component: &Path, dir: &Path) -> Result<PathBuf> {
        let name = component.file_stem().unwrap_or_default().to_string_lossy();
        let kind = if self.tuned { "tuned" } else { "plain" };
        let compiled = dir.join(format!("{name}-{kind}.cwasm"));
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
