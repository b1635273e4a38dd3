//! The daemon's side of creating a container: start the init role, hear from it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use log::warn;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::control::{CreateRequest, Created, Report};
use crate::error::ContainerError;

/// The three standard streams of a container's first process.
#[derive(Debug)]
pub struct Stdio {
    /// Read by the process.
    pub stdin: OwnedFd,
    /// Written by the process.
    pub stdout: OwnedFd,
    /// Written by the process.
    pub stderr: OwnedFd,
}

/// A container being created or waiting for `Start`.
#[derive(Debug)]
pub struct Launch {
    control: BufReader<UnixStream>,
    id: String,
    creator: u32,
}

/// Starts the init role for `request` with `stdio` as the container's streams.
///
/// The role runs from `/proc/self/exe`, so an upgrade that replaces the binary
/// on disk never mixes two versions in one pod.
///
/// # Errors
/// When no process or descriptor is to be had.
pub async fn launch(request: &CreateRequest, stdio: Stdio) -> Result<Launch, ContainerError> {
    let (ours, theirs) = StdUnixStream::pair().map_err(init_error("socket pair"))?;
    ours.set_nonblocking(true)
        .map_err(init_error("socket pair"))?;
    let mut control = UnixStream::from_std(ours).map_err(init_error("socket pair"))?;

    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("containerd-shim-wisp-v1")
        .args(["init", &theirs.as_raw_fd().to_string()])
        .env_clear()
        // A group of its own, so that a creation can be ended as a whole.
        .process_group(0)
        .stdin(stdio.stdin)
        .stdout(stdio.stdout)
        .stderr(stdio.stderr);
    for name in ["PATH", "RUST_BACKTRACE", "WISP_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // The daemon has one thread, so no other spawn can inherit the descriptor
    // while it is without CLOEXEC.
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(|e| ContainerError::Init(format!("pass the control socket: {e}")))?;
    let child = command.spawn().map_err(init_error("start"))?;
    drop(theirs);
    // The command holds the container's streams; a stream kept open here would
    // keep its reader from seeing the end.
    drop(command);

    let mut line = serde_json::to_vec(request)
        .map_err(|e| ContainerError::Init(format!("encode the request: {e}")))?;
    line.push(b'\n');
    control
        .write_all(&line)
        .await
        .map_err(init_error("send the request"))?;
    Ok(Launch {
        control: BufReader::new(control),
        id: request.id.clone(),
        creator: child.id(),
    })
}

fn init_error(what: &'static str) -> impl Fn(io::Error) -> ContainerError {
    move |error| ContainerError::Init(format!("{what}: {error}"))
}

impl Launch {
    async fn report(&mut self) -> Result<Option<Report>, ContainerError> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self
                .control
                .read_line(&mut line)
                .await
                .map_err(init_error("hear from it"))?;
            if read == 0 {
                return Ok(None);
            }
            match serde_json::from_str(&line) {
                Ok(Report::Warning(text)) => warn!("container {}: {text}", self.id),
                Ok(report) => return Ok(Some(report)),
                Err(error) => {
                    return Err(ContainerError::Init(format!("malformed report: {error}")));
                }
            }
        }
    }

    /// Kills the process that creates the container and those it has forked.
    /// One that has left their process group is in the container's cgroup; that
    /// and what was made so far is for [`Bundle::abandon`](crate::Bundle::abandon).
    pub fn kill(&self) {
        match i32::try_from(self.creator) {
            Ok(group) if group > 1 => {
                if let Err(errno) = crate::cgroup::send(-group, libc::SIGKILL) {
                    warn!("container {}: kill its creator: {errno}", self.id);
                }
            }
            _ => warn!("container {}: its creator has no pid", self.id),
        }
    }

    /// Waits until the container is created.
    ///
    /// # Errors
    /// The init role's own reason, or that it died without giving one.
    pub async fn created(&mut self) -> Result<Created, ContainerError> {
        match self.report().await? {
            Some(Report::Created(created)) => Ok(created),
            Some(Report::Failed(reason)) => Err(ContainerError::Refused(reason)),
            Some(other) => Err(ContainerError::Init(format!(
                "expected the container, got {other:?}"
            ))),
            None => Err(ContainerError::Init(
                "ended before the container was created".into(),
            )),
        }
    }

    /// Waits, after the container was let go, until its program runs (HTTP
    /// components: until the port listens).
    ///
    /// # Errors
    /// The reason the program gave for not running.
    pub async fn running(mut self) -> Result<(), ContainerError> {
        match self.report().await? {
            // A native program replaces the init role, which closes the socket.
            Some(Report::Ready) | None => Ok(()),
            Some(Report::Failed(reason)) => Err(ContainerError::Refused(reason)),
            Some(other) => Err(ContainerError::Init(format!("unexpected {other:?}"))),
        }
    }
}
