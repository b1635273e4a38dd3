//! `wisp --version`: of everything that must fit together.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use wisp_aot::{Key, WASMTIME_VERSION};

/// Whether that is what was asked for, and nothing else.
pub fn asked() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().is_some_and(|first| first == "--version") && arguments.next().is_none()
}

/// Prints them: of wisp first, alone in its line.
///
/// # Errors
/// When nobody listens.
pub fn print() -> Result<()> {
    let own = std::env::current_exe().ok();
    let shim = own
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| dir.join(wisp_install::SHIM));
    let text = format!(
        "wisp {}\nwasmtime {WASMTIME_VERSION}\naot-key {}\nshim {}\n",
        env!("CARGO_PKG_VERSION"),
        Key::here(),
        shim.as_deref()
            .map_or_else(|| "unknown".to_owned(), shim_beside)
    );
    io::stdout()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// What the shim at `path` says of itself: it runs what this wisp compiles only if
/// the key is the same.
fn shim_beside(path: &Path) -> String {
    let shown = path.display();
    if !path.exists() {
        return format!("none beside this program ({shown})");
    }
    let said = match Command::new(path).arg("-v").output() {
        Ok(said) => said,
        Err(error) => return format!("does not run: {error} ({shown})"),
    };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let field = |name: &str| {
        let lines = text.lines().map(str::trim);
        let mut found = lines.filter_map(|line| line.strip_prefix(name));
        found.next().map_or("unknown", str::trim).to_owned()
    };
    format!(
        "{}, wasmtime {}, aot-key {} ({shown})",
        field("Version:"),
        field("Wasmtime:"),
        field("AOT key:")
    )
}
