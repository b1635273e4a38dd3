//! What is swapped for something else while it is opened.

use super::super::{Case, cases as all};
use super::{SECRET, denied, mount, volume};
use anyhow::{Result, ensure};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Run, Test};

pub fn cases() -> Vec<Case> {
    all(
        "hostile races",
        &[
            (
                "a volume's files and directories swapped for links",
                swapped,
            ),
            ("directories renamed by another guest", renamed),
        ],
    )
}

/// How often the guest opens each of its paths.
const TIMES: &str = "3000";

/// In `in`: a directory and a file that may be read, and links out of `in` that
/// take their places.
fn place(test: &Test<'_>) -> Result<PathBuf> {
    let volume = volume(test, "volume")?;
    let inside = volume.join("in");
    fs::create_dir(volume.join("elsewhere"))?;
    fs::write(volume.join("elsewhere/secret"), SECRET)?;
    fs::create_dir(inside.join("place"))?;
    for public in ["place/secret", "secret", "file"] {
        fs::write(inside.join(public), "public\n")?;
    }
    symlink("../elsewhere", inside.join("out"))?;
    symlink("../secret", inside.join("out-file"))?;
    Ok(volume)
}

/// Swaps two names, again and again, until it is dropped.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<nix::Result<()>>>,
}

impl Swapping {
    fn start(inside: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let inside = inside.to_owned();
        let thread = std::thread::spawn(move || {
            let swap = |one: &str, other: &str| {
                let (one, other) = (inside.join(one), inside.join(other));
                renameat2(
                    AT_FDCWD,
                    &one,
                    AT_FDCWD,
                    &other,
                    RenameFlags::RENAME_EXCHANGE,
                )
            };
            while !stopped.load(Ordering::Relaxed) {
                swap("place", "out")?;
                swap("file", "out-file")?;
            }
            Ok(())
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => Ok(ended?),
            _ => anyhow::bail!("the one who swaps panicked"),
        }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A guest that opens what is swapped; it has opened something.
fn opens(run: Run<'_, '_>) -> Result<()> {
    let (out, _) = denied(run.args(&["race", "/data/in", TIMES]), 0)?;
    ensure!(
        out.contains("opened ") && !out.contains("opened 0,"),
        "{out}"
    );
    Ok(())
}

fn of<'t, 'n>(test: &'t Test<'n>, image: &str, volume: &Path) -> Run<'t, 'n> {
    test.run(image)
        .flags(&["--mount", &mount(volume, "rw")])
        .annotation("io.wisp.fs.preopens", "/data/in")
}

fn swapped(test: &Test<'_>) -> Result<()> {
    let image = test.image("hostile")?;
    let volume = place(test)?;
    let swapping = Swapping::start(&volume.join("in"));
    opens(of(test, &image, &volume))?;
    swapping.end()
}

fn renamed(test: &Test<'_>) -> Result<()> {
    let image = test.image("hostile")?;
    let volume = place(test)?;
    let other = of(test, &image, &volume)
        .args(&["swap", "/data/in"])
        .start()?;
    other.stdout.until("swapping", PATIENCE)?;
    opens(of(test, &image, &volume))?;
    let ended = other.end_by(Signal::SIGKILL)?;
    ensure!(ended.code == 137, "{ended:?}");
    Ok(())
}
