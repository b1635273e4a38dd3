//! A server in the background.

use crate::wait;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it says goes to `NAME.log` in `dir`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(dir: &Path, name: &str, command: &mut Command) -> Result<Self> {
        let log = dir.join(name).with_extension("log");
        let out = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, log })
    }

    /// Waits for something, unless it ends before.
    ///
    /// # Errors
    /// When it ends, or that is not so in time; with its last words.
    pub fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let mut ended = None;
        let found = wait::until(patience, || {
            if let Some(found) = look() {
                return Some(Some(found));
            }
            ended = self.child.try_wait().ok().flatten();
            ended.map(|_| None)
        });
        match found.flatten() {
            Some(found) => Ok(found),
            None => bail!("{what}: not so ({ended:?}):\n{}", self.last(30)),
        }
    }

    /// The last lines of its log.
    pub fn last(&self, count: usize) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Ends it, by SIGKILL if it takes too long.
    pub fn stop(&mut self) {
        if let (Ok(pid), Ok(None)) = (i32::try_from(self.child.id()), self.child.try_wait()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if wait::until(END, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
