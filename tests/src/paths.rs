//! Where the things under test are.

use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

/// Where `make build` leaves the two programs.
pub fn release() -> PathBuf {
    repository().join("target/release")
}

/// The shim under test.
pub fn shim() -> PathBuf {
    release().join("containerd-shim-wisp-v1")
}

/// The `wisp` under test.
pub fn wisp() -> PathBuf {
    release().join("wisp")
}

/// A guest that `make examples` built, by its name without `.wasm`.
///
/// # Errors
/// When it is not there.
pub fn guest(name: &str) -> Result<PathBuf> {
    let path = repository()
        .join("target/guests")
        .join(name)
        .with_extension("wasm");
    ensure!(
        path.exists(),
        "{} is missing: run `make examples`",
        path.display()
    );
    Ok(path)
}

/// Checks that what the suites run has been built.
///
/// # Errors
/// What is missing and which command builds it.
pub fn check() -> Result<()> {
    for program in [shim(), wisp()] {
        ensure!(
            program.exists(),
            "{} is missing: run `make build`",
            program.display()
        );
    }
    guest("hello").map(drop)
}
