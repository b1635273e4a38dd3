//! One process of a container in the daemon: the first one, or one that Exec
//! has added. What both share: streams, state, signals, the end.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim::protos::api::Status;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use log::warn;
use tokio::sync::watch;
use wisp_container::cgroup::send;

use super::error::TaskError;
use super::stdio::{Kept, Streams};

/// How often to look whether a reader has caught up: nothing tells us.
const LOOK: Duration = Duration::from_millis(50);

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its code, or 128 plus the signal.
    pub status: u32,
    /// When the daemon heard of it.
    pub at: Timestamp,
}

/// A process, before, while and after it runs.
#[derive(Debug)]
pub struct Process {
    name: String,
    streams: Streams,
    kept: Mutex<Kept>,
    /// 0 until there is one.
    pid: AtomicI32,
    started: AtomicBool,
    exit: watch::Sender<Option<Exit>>,
}

impl Process {
    /// A process that is not there yet; messages call it `name`.
    pub fn new(name: String, streams: Streams) -> Self {
        Self {
            name,
            streams,
            kept: Mutex::default(),
            pid: AtomicI32::new(0),
            started: AtomicBool::new(false),
            exit: watch::Sender::new(None),
        }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its streams as requested.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Tells that the process is there, and what the daemon keeps of its streams.
    pub fn created(&self, pid: i32, kept: Kept) {
        self.pid.store(pid, Ordering::Relaxed);
        *self.kept() = kept;
    }

    /// Tells that its program runs.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether its program runs or has run.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Its id in the daemon's pid namespace; 0 if there is no process yet.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed).unsigned_abs()
    }

    /// Its state in containerd's terms, and how it ended if it did.
    pub fn status(&self) -> (Status, Option<Exit>) {
        let exit = self.exit.borrow().clone();
        let status = match &exit {
            Some(_) => Status::STOPPED,
            None if self.is_started() => Status::RUNNING,
            None => Status::CREATED,
        };
        (status, exit)
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Refuses the call `what`, for its state.
    pub fn refuse(&self, what: &'static str) -> TaskError {
        TaskError::State {
            what,
            name: self.name.clone(),
            state: match self.status().0 {
                Status::CREATED => "created and not started",
                Status::RUNNING => "running",
                _ => "stopped",
            },
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds stdin open from Start until CloseIO.
    pub fn hold_stdin(&self) {
        if let Err(error) = self.kept().hold_stdin() {
            warn!("{}: {error:#}", self.name);
        }
    }

    /// Lets the program see the end of its stdin once no client writes to it.
    pub fn close_stdin(&self) {
        self.kept().close_stdin();
    }

    /// Says how large its terminal is; nothing to do without one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn resize(&self, width: u32, height: u32) -> Result<(), TaskError> {
        self.kept()
            .resize(width, height)
            .map_err(|error| TaskError::Invalid(format!("{}: resize: {error}", self.name)))
    }

    /// Lets go of its streams.
    pub async fn close_streams(&self) {
        let kept = std::mem::take(&mut *self.kept());
        kept.close().await;
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// When there is no process yet or any more, or the kernel refuses.
    pub fn signal(&self, signal: i32) -> Result<(), TaskError> {
        if self.exit.borrow().is_some() {
            return Err(TaskError::Finished(self.name.clone()));
        }
        match self.pid.load(Ordering::Relaxed) {
            0 => Err(TaskError::NoProcess(self.name.clone())),
            pid => send(pid, signal).map_err(|source| TaskError::Signal {
                name: self.name.clone(),
                source,
            }),
        }
    }

    /// Tells its end; who waits hears of it.
    pub fn ended(&self, status: u32) -> Exit {
        self.kept().close_stdin();
        let exit = Exit { status, at: now() };
        self.exit.send_replace(Some(exit.clone()));
        exit
    }

    /// Keeps what the process has said and nobody has read for a reader that
    /// comes back, until it has read all of it or the streams are let go of. To
    /// a reader that finds nobody writing, a FIFO looks as if nothing had been.
    pub async fn keep_unread(&self) {
        self.kept().hold_unread();
        while self.kept().release_read() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for the end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(lost),
            Err(_) => lost(),
        }
    }
}

/// The sender lives as long as the process's record, so this is never seen;
/// killed is the honest answer for an end nobody saw.
fn lost() -> Exit {
    Exit {
        status: 128 + libc::SIGKILL.unsigned_abs(),
        at: now(),
    }
}

/// The time, as containerd's messages carry it.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        ..Timestamp::default()
    }
}
