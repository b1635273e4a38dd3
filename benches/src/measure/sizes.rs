//! What is shipped and installed.

use crate::bench::Bench;
use crate::contestants::{Contestant, Form};
use crate::results::{Results, Unit};
use anyhow::{Context, Result};
use std::fs;

pub const IMAGE: &str = "image-size";
pub const BINARIES: &str = "binaries-size";

/// The sizes of the hello images, by form, and of the binaries on disk.
pub fn measure(bench: &Bench<'_>, images: &[(Form, u64)], results: &mut Results) -> Result<()> {
    for contestant in bench.principals() {
        let image = images.iter().find(|(form, _)| *form == contestant.form);
        let (_, image) = image.context("every form has a hello")?;
        results.add(IMAGE, Unit::Mebibytes, contestant.name, mebibytes(*image));
        let installed = mebibytes(installed(contestant)?);
        results.add(BINARIES, Unit::Mebibytes, contestant.name, installed);
    }
    Ok(())
}

fn installed(contestant: &Contestant) -> Result<u64> {
    contestant.files.iter().try_fold(0, |sum, file| {
        let size = fs::metadata(file)
            .with_context(|| file.display().to_string())?
            .len();
        Ok(sum + size)
    })
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
