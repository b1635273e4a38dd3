//! The daemon's side of making a process: start the role that does it, hear
//! from it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use log::warn;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::bundle::Bundle;
use crate::control::{CreateRequest, Created, ExecRequest, ProgramKind, Report, START};
use crate::error::ContainerError;
use crate::reports::Reports;
use crate::shares::{Share, Shares};
use crate::trace::Trace;

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

/// A process being made or waiting for `Start`.
#[derive(Debug)]
pub struct Launch {
    reports: Reports,
    id: String,
    creator: u32,
    trace: Trace,
}

/// Starts the init role for `request` with `stdio` as the container's streams, and
/// the first of its `shares`.
///
/// # Errors
/// When no process or descriptor is to be had.
pub async fn launch(
    mut request: CreateRequest,
    shares: &Shares,
    stdio: Stdio,
) -> Result<Launch, ContainerError> {
    request.ledger = shares.as_fd().as_raw_fd();
    run("init", &request.id, &request, stdio, &[shares.as_fd()]).await
}

/// Starts the exec role with `stdio` as the new process's streams. `first` is
/// the container's first process as a pidfd, `share` the new one's, which is to be
/// dropped when it has ended.
///
/// # Errors
/// When no process or descriptor is to be had.
pub async fn launch_exec(
    mut request: ExecRequest,
    first: &OwnedFd,
    share: &Share,
    stdio: Stdio,
) -> Result<Launch, ContainerError> {
    request.pidfd = first.as_raw_fd();
    request.ledger = share.as_fd().as_raw_fd();
    request.place = share.number();
    let passed = [first.as_fd(), share.as_fd()];
    run("exec", &request.id, &request, stdio, &passed).await
}

/// The role runs from `/proc/self/exe`, so an upgrade that replaces the binary
/// on disk never mixes two versions in one pod.
async fn run(
    role: &str,
    id: &str,
    request: &impl Serialize,
    stdio: Stdio,
    passed: &[BorrowedFd<'_>],
) -> Result<Launch, ContainerError> {
    let trace = Trace::of(id);
    let (ours, theirs) = StdUnixStream::pair().map_err(init_error("socket pair"))?;
    ours.set_nonblocking(true)
        .map_err(init_error("socket pair"))?;
    let mut control = UnixStream::from_std(ours).map_err(init_error("socket pair"))?;

    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("containerd-shim-wisp-v1")
        .args([role, &theirs.as_raw_fd().to_string()])
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
    pass(theirs.as_fd(), FdFlag::empty())?;
    for passed in passed {
        pass(*passed, FdFlag::empty())?;
    }
    let spawned = command.spawn();
    for passed in passed {
        pass(*passed, FdFlag::FD_CLOEXEC)?;
    }
    let child = spawned.map_err(init_error("start"))?;
    drop(theirs);
    trace.mark(&format!("daemon: {role} spawned"));
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
        reports: Reports::new(control),
        id: id.to_owned(),
        creator: child.id(),
        trace,
    })
}

fn pass(fd: BorrowedFd<'_>, flag: FdFlag) -> Result<(), ContainerError> {
    fcntl(fd, FcntlArg::F_SETFD(flag))
        .map(drop)
        .map_err(|e| ContainerError::Init(format!("pass a descriptor: {e}")))
}

fn init_error(what: &'static str) -> impl Fn(io::Error) -> ContainerError {
    move |error| ContainerError::Init(format!("{what}: {error}"))
}

impl Launch {
    async fn report(&mut self) -> Result<Option<Report>, ContainerError> {
        loop {
            match self.reports.next().await? {
                Some(Report::Step(step, at)) => self.trace.mark_at(&step, at),
                Some(Report::Warning(text)) => warn!("container {}: {text}", self.id),
                Some(Report::Terminal) => {}
                other => return Ok(other),
            }
        }
    }

    /// The master of the process's terminal, once it has been created with one.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.reports.descriptor()
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
        let mut found: Option<Created> = None;
        let mut forked = None;
        let mut waits = false;
        loop {
            match self.report().await? {
                Some(Report::Created(created)) => {
                    if created.kind == ProgramKind::Native {
                        return Ok(created);
                    }
                    found = Some(created);
                }
                Some(Report::Forked(pid)) => forked = Some(pid),
                Some(Report::Waiting) => waits = true,
                Some(Report::Failed(reason)) => return Err(ContainerError::Refused(reason)),
                Some(other) => {
                    return Err(ContainerError::Init(format!(
                        "expected the container, got {other:?}"
                    )));
                }
                None => {
                    return Err(ContainerError::Init(
                        "ended before the container was created".into(),
                    ));
                }
            }
            // The guest's process and its parent are not heard in order.
            if let (true, Some(pid), Some(created)) = (waits, forked, &found) {
                return Ok(Created {
                    pid,
                    ..created.clone()
                });
            }
        }
    }

    /// Waits until the further process is there; answers its pid.
    ///
    /// # Errors
    /// The exec role's own reason, or that it died without giving one.
    pub async fn added(&mut self) -> Result<i32, ContainerError> {
        match self.report().await? {
            Some(Report::Added(pid)) => Ok(pid),
            Some(Report::Failed(reason)) => Err(ContainerError::Refused(reason)),
            Some(other) => Err(ContainerError::Init(format!(
                "expected the process, got {other:?}"
            ))),
            None => Err(ContainerError::Init(
                "ended before the process was there".into(),
            )),
        }
    }

    /// Lets a created container's program run, and waits until it does (HTTP
    /// components: until the port listens).
    ///
    /// # Errors
    /// The reason the program gave for not running, or libcontainer's for not
    /// starting it.
    pub async fn start(mut self, kind: ProgramKind, bundle: &Bundle) -> Result<(), ContainerError> {
        match kind {
            ProgramKind::Wasm => self
                .reports
                .send(START)
                .await
                .map_err(init_error("let it go"))?,
            ProgramKind::Native => {
                // libcontainer runs the spec's hooks here, which take what time
                // they like.
                let (bundle, id) = (bundle.clone(), self.id.clone());
                tokio::task::spawn_blocking(move || {
                    // It also changes its working directory for a moment, which
                    // must not be that of two threads.
                    unshare(CloneFlags::CLONE_FS)
                        .map_err(|errno| ContainerError::Init(format!("unshare: {errno}")))?;
                    bundle.start(&id)
                })
                .await
                .map_err(|error| ContainerError::Init(format!("start: {error}")))??;
            }
        }
        self.runs(kind == ProgramKind::Native).await
    }

    /// Waits, after the further process was added, until it runs.
    ///
    /// # Errors
    /// The reason the program gave for not running.
    pub async fn running(self) -> Result<(), ContainerError> {
        // A Wasm container runs native programs too.
        self.runs(true).await
    }

    /// A native program replaces the role that became it, which closes the
    /// socket without a word.
    async fn runs(mut self, may_be_native: bool) -> Result<(), ContainerError> {
        match self.report().await? {
            Some(Report::Ready) => Ok(()),
            None if may_be_native => Ok(()),
            None => Err(ContainerError::Init("ended before its program ran".into())),
            Some(Report::Failed(reason)) => Err(ContainerError::Refused(reason)),
            Some(other) => Err(ContainerError::Init(format!("unexpected {other:?}"))),
        }
    }
}
