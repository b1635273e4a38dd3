//! Running a program to its end, or to a deadline.

use crate::wait;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How a program ended and what it said.
#[derive(Clone)]
pub struct Ended {
    /// Its exit code; 128 + N if signal N killed it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended")
            .field("code", &self.code)
            .field("stdout", &shown(&self.stdout))
            .field("stderr", &shown(&self.stderr))
            .finish()
    }
}

/// Runs `command` with `stdin` as its whole input.
///
/// # Errors
/// When it cannot be started, or does not end in time; then it is killed, and
/// the error has what it said so far.
pub fn run(command: &mut Command, stdin: Vec<u8>, patience: Duration) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut input = child.stdin.take().context("no stdin")?;
    thread::spawn(move || {
        // A program that ends without reading its input is no error.
        let _ = input.write_all(&stdin);
    });
    let stdout = collect(child.stdout.take().context("no stdout")?);
    let stderr = collect(child.stderr.take().context("no stderr")?);
    let patience = wait::here(patience);
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(child.wait()));

    let status = match end.recv_timeout(patience) {
        Ok(status) => status.with_context(|| format!("wait for {command:?}"))?,
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = end.recv();
            let (out, err) = (stdout.recv()?, stderr.recv()?);
            bail!(
                "{command:?} did not end within {patience:?}\n--- stdout\n{}\n--- stderr\n{}",
                shown(&out),
                shown(&err)
            );
        }
    };
    Ok(Ended {
        code: status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1),
        stdout: stdout.recv()?,
        stderr: stderr.recv()?,
    })
}

/// The last part of what a program said, readable.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 4000;
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MOST)..]).into_owned()
}

fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        send.send(bytes)
    });
    receive
}
