//! Images of the example guests, made by `wisp pack`.

use crate::containerd::own_name;
use crate::{command, paths};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// An image tar once it has been made, or why that failed.
type Made = OnceLock<Result<PathBuf, String>>;

/// Image tars by the name of what is in them, each made once.
#[derive(Debug)]
pub struct Images {
    dir: TempDir,
    made: Mutex<HashMap<String, Arc<Made>>>,
}

impl Images {
    /// No images yet.
    ///
    /// # Errors
    /// When there is no temporary directory to be had.
    pub fn new() -> Result<Self> {
        Ok(Self {
            dir: tempfile::Builder::new()
                .prefix(&format!("{}images-", own_name()))
                .tempdir()?,
            made: Mutex::default(),
        })
    }

    /// The image tar called `name`, made by `make` the first time.
    ///
    /// # Errors
    /// Whatever `make` said.
    pub fn get(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let cell = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(made.entry(name.to_owned()).or_default())
        };
        cell.get_or_init(|| {
            let path = self
                .dir
                .path()
                .join(name.replace(['/', ':'], "-"))
                .with_extension("tar");
            make(&path).map(|()| path).map_err(|e| format!("{e:#}"))
        })
        .clone()
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("make image {name}"))
    }
}

/// Runs `wisp pack` for the Wasm file at `program`, naming the image `reference`.
///
/// # Errors
/// What `wisp pack` said.
pub fn pack(program: &Path, reference: &str, more: &[&str], output: &Path) -> Result<()> {
    let mut pack = Command::new(paths::wisp());
    pack.arg("pack")
        .arg(program)
        .args(["-t", reference, "-o"])
        .arg(output)
        .args(more);
    let ended = command::run(&mut pack, Vec::new(), Duration::from_secs(60))?;
    ensure!(
        ended.code == 0,
        "{pack:?} exited {}: {}",
        ended.code,
        ended.err()
    );
    Ok(())
}
