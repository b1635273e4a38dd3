//! Running a program as somebody at a terminal would.

use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Runs `command` at a terminal of 30 lines and 100 columns where nobody types;
/// answers its exit code and all that was on the screen.
///
/// # Errors
/// When it cannot be started or does not end in time; then it is killed.
pub fn run(mut command: Command, patience: Duration) -> Result<(i32, String)> {
    let size = Winsize {
        ws_row: 30,
        ws_col: 100,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None)?;
    let slave = || pty.slave.try_clone().map(Stdio::from);
    let mut child = command
        .stdin(slave()?)
        .stdout(slave()?)
        .stderr(slave()?)
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    // The command keeps the slave's copies.
    drop((command, pty.slave));
    let (tell, told) = mpsc::channel();
    let mut master = File::from(pty.master);
    thread::spawn(move || {
        let mut screen = Vec::new();
        // The end of a terminal is an error.
        let _ = master.read_to_end(&mut screen);
        let _ = tell.send(screen);
    });
    match told.recv_timeout(patience) {
        Ok(screen) => {
            let status = child.wait()?;
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            let text = String::from_utf8_lossy(&screen).into_owned();
            Ok((code.context("it has no code")?, text))
        }
        Err(_) => {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it did not end within {patience:?}")
        }
    }
}
