//! What was started and has to go again, also when the run is interrupted.

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

#[derive(Debug, PartialEq, Eq)]
enum Started {
    Process(i32),
    Directory(PathBuf),
}

static STARTED: Mutex<Vec<Started>> = Mutex::new(Vec::new());

fn started() -> MutexGuard<'static, Vec<Started>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something of [`STARTED`]; when this is dropped, its owner has taken it away.
#[derive(Debug)]
#[must_use]
pub struct Noted(Started);

/// Notes a process that was started.
pub fn process(pid: u32) -> Noted {
    // Process ids are below 2^22.
    let pid = i32::try_from(pid).unwrap_or_default();
    started().push(Started::Process(pid));
    Noted(Started::Process(pid))
}

/// Notes a directory that was made.
pub fn directory(path: &Path) -> Noted {
    started().push(Started::Directory(path.to_owned()));
    Noted(Started::Directory(path.to_owned()))
}

impl Drop for Noted {
    fn drop(&mut self) {
        started().retain(|started| *started != self.0);
    }
}

/// Has SIGINT and SIGTERM take away what is noted before they end this process;
/// what else belongs to a directory, `remove` does. To be called before there
/// are threads.
///
/// # Errors
/// The kernel's.
pub fn clean_up_when_interrupted(remove: fn(&Path)) -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        eprintln!("bench: interrupted, removing what was started");
        // Nobody starts or ends anything any more.
        let mut started = started();
        for started in started.iter() {
            if let Started::Process(pid) = started
                && *pid > 0
            {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
        for started in started.drain(..) {
            if let Started::Directory(path) = started {
                remove(&path);
                let _ = fs::remove_dir_all(&path);
            }
        }
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}
