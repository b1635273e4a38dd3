//! Guests, images and volumes that try to get what nobody gave them. Each attempt
//! is denied, and what a guest asks of its host is told.

mod files;
mod images;
mod names;
mod network;
mod races;
mod sandbox;
mod taking;

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use wisp_tests::{Ended, Run, Test};

pub fn all() -> Vec<Case> {
    [
        files::cases(),
        races::cases(),
        network::cases(),
        names::cases(),
        taking::cases(),
        images::cases(),
        sandbox::cases(),
    ]
    .concat()
}

/// What no guest of these tests may read.
const SECRET: &str = "the secret\n";

/// Runs it to its end. Not by `ctr`, which on a busy machine may cancel its reading
/// before it has read, and then all seems well that said nothing.
fn to_end(run: Run<'_, '_>) -> Result<Ended> {
    run.start()?.finish()
}

/// Runs `hostile`, which must have been denied all of its attempts, of which
/// there are at least `attempts`; answers what it and its host said.
fn denied(run: Run<'_, '_>, attempts: usize) -> Result<(String, String)> {
    all_denied(&to_end(run)?, attempts)
}

/// The same, when it has ended.
fn all_denied(ended: &Ended, attempts: usize) -> Result<(String, String)> {
    let (out, err) = (ended.out(), ended.err());
    ensure!(ended.code == 0, "exited {}: {out}{err}", ended.code);
    ensure!(!out.contains("REACHED") && !out.contains(SECRET), "{out}");
    let count = out
        .lines()
        .filter(|line| line.starts_with("denied "))
        .count();
    ensure!(count >= attempts, "{count} attempts only: {out}{err}");
    Ok((out, err))
}

/// A directory with a secret, and in it the directory `in`, which is all that a
/// guest is to have of it.
fn volume(test: &Test<'_>, name: &str) -> Result<PathBuf> {
    let volume = test.dir().join(name);
    fs::create_dir_all(volume.join("in/inner"))?;
    fs::write(volume.join("secret"), SECRET)?;
    fs::write(volume.join("in/own"), "own\n")?;
    Ok(volume)
}

/// Links as a hostile image or another pod may have left them.
const LINKS: [(&str, &str); 4] = [
    ("host-file", "../secret"),
    ("host-up", ".."),
    ("host-absolute", "/data"),
    ("host-proc", "/proc/self/root"),
];

fn link_out(inside: &Path) -> Result<()> {
    for (name, target) in LINKS {
        symlink(target, inside.join(name)).context(name)?;
    }
    Ok(())
}

/// A flag of `ctr run` that mounts `source` at `/data`.
fn mount(source: &Path, mode: &str) -> String {
    format!(
        "type=bind,src={},dst=/data,options=rbind:{mode}",
        source.display()
    )
}
