//! Where the things under test are.

use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

/// Where the two programs under test are: `WISP_TESTS_BINARIES`, from the
/// repository if it is relative, else where `make build` leaves them.
pub fn binaries() -> PathBuf {
    let named = std::env::var_os("WISP_TESTS_BINARIES").filter(|path| !path.is_empty());
    let path = repository().join(named.unwrap_or_else(|| "target/release".into()));
    // As the kernel names them where leftovers are looked for.
    path.canonicalize().unwrap_or(path)
}

/// The shim under test.
pub fn shim() -> PathBuf {
    binaries().join("containerd-shim-wisp-v1")
}

/// The `wisp` under test.
pub fn wisp() -> PathBuf {
    binaries().join("wisp")
}

/// The `wisp-node-installer` under test.
pub fn installer() -> PathBuf {
    binaries().join("wisp-node-installer")
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
