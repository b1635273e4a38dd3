//! One container in the daemon: its state, and what moves it on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim::protos::api::Status;
use containerd_shim::protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use log::{debug, info, warn};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};
use wisp_container::cgroup::{Cgroup, send};
use wisp_container::{Bundle, ContainerError, Created, Launch};

use super::events::{Event, Publisher};
use super::stdio::{Kept, Streams};

/// How long a process that reported why it cannot run may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a container ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its code, or 128 plus the signal.
    pub status: u32,
    /// When the daemon heard of it.
    pub at: Timestamp,
}

/// Why a call on a task is refused.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Not in the right state for the call.
    #[error("cannot {what} container {id}: it is {state}")]
    State {
        /// The call.
        what: &'static str,
        /// The container.
        id: String,
        /// Its state in words.
        state: &'static str,
    },
    /// The process has ended.
    #[error("container {0}: process already finished")]
    Finished(String),
    /// Another Delete was faster.
    #[error("container {0} not found")]
    Deleted(String),
    /// The container itself refused.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The signal could not be sent.
    #[error("signal container {id}: {source}")]
    Signal {
        /// The container.
        id: String,
        /// The kernel's answer.
        source: nix::errno::Errno,
    },
}

/// What a task is made from.
#[derive(Debug)]
pub struct Parts {
    /// Container id.
    pub id: String,
    /// Its bundle.
    pub bundle: Bundle,
    /// What the init role made.
    pub created: Created,
    /// Streams as requested.
    pub streams: Streams,
    /// What the daemon keeps of them.
    pub kept: Kept,
    /// The waiting init role.
    pub launch: Launch,
}

/// A container whose first process exists or has existed.
#[derive(Debug)]
pub struct Task {
    id: String,
    bundle: Bundle,
    pid: i32,
    streams: Streams,
    kept: Mutex<Kept>,
    cgroup: Cgroup,
    /// No pid namespace of its own: its processes outlive its first one.
    shares_pids: bool,
    exit: watch::Sender<Option<Exit>>,
    // Start and Delete exclude each other, and the end of the process is
    // announced after the start of it. The launch is there until Start.
    life: AsyncMutex<Option<Launch>>,
    started: Mutex<bool>,
    deleted: AsyncMutex<bool>,
    publisher: Publisher,
}

impl Task {
    /// A container that waits for Start. Announces it, and from then on
    /// watches for its end.
    pub fn new(parts: Parts, ended: oneshot::Receiver<u32>, publisher: Publisher) -> Arc<Self> {
        let Parts {
            id,
            bundle,
            created:
                Created {
                    pid,
                    kind,
                    cgroup,
                    shares_pids,
                },
            streams,
            kept,
            launch,
        } = parts;
        info!("container {id}: created, {kind:?}, pid {pid}");
        let task = Arc::new(Self {
            cgroup,
            shares_pids,
            id,
            bundle,
            pid,
            streams,
            kept: Mutex::new(kept),
            exit: watch::Sender::new(None),
            life: AsyncMutex::new(Some(launch)),
            started: Mutex::new(false),
            deleted: AsyncMutex::new(false),
            publisher,
        });
        task.publisher.publish(&Event::Create(TaskCreate {
            container_id: task.id.clone(),
            bundle: task.bundle.path().to_string_lossy().into_owned(),
            pid: task.pid(),
            io: MessageField::some(TaskIO {
                stdin: task.streams.stdin.clone(),
                stdout: task.streams.stdout.clone(),
                stderr: task.streams.stderr.clone(),
                ..TaskIO::default()
            }),
            ..TaskCreate::default()
        }));
        let watched = task.clone();
        tokio::spawn(async move {
            if let Ok(status) = ended.await {
                watched.ended(status).await;
            }
        });
        task
    }

    async fn ended(&self, status: u32) {
        // A Start under way announces the start first.
        let life = self.life.lock().await;
        info!("container {}: ended with {status}", self.id);
        if self.shares_pids
            && let Err(error) = self.cgroup.kill_all(libc::SIGKILL)
        {
            warn!("container {}: {error}", self.id);
        }
        self.lock_kept().close_stdin();
        let at = now();
        self.exit.send_replace(Some(Exit {
            status,
            at: at.clone(),
        }));
        self.publisher.publish(&Event::Exit(TaskExit {
            container_id: self.id.clone(),
            id: self.id.clone(),
            pid: self.pid(),
            exit_status: status,
            exited_at: MessageField::some(at),
            ..TaskExit::default()
        }));
        drop(life);
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Its streams as requested.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Its first process, in the daemon's pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
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

    fn is_started(&self) -> bool {
        *self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, what: &'static str) -> TaskError {
        TaskError::State {
            what,
            id: self.id.clone(),
            state: match self.status().0 {
                Status::CREATED => "created and not started",
                Status::RUNNING => "running",
                _ => "stopped",
            },
        }
    }

    /// Lets the program run; answers when it does (HTTP components: when the
    /// port listens).
    ///
    /// # Errors
    /// When it runs or has run already, or the program's reason not to.
    pub async fn start(&self) -> Result<(), TaskError> {
        let mut life = self.life.lock().await;
        if self.exit.borrow().is_some() {
            return Err(self.refuse("start"));
        }
        let Some(launch) = life.take() else {
            return Err(self.refuse("start"));
        };
        if let Err(error) = self.lock_kept().hold_stdin() {
            warn!("container {}: {error:#}", self.id);
        }
        let running = match self.bundle.start(&self.id) {
            Ok(()) => launch.running().await,
            Err(error) => Err(error),
        };
        if let Err(error) = running {
            drop(life);
            self.end_failed_start().await;
            return Err(error.into());
        }
        *self.started.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.publisher.publish(&Event::Start(TaskStart {
            container_id: self.id.clone(),
            pid: self.pid(),
            ..TaskStart::default()
        }));
        debug!("container {}: started", self.id);
        Ok(())
    }

    /// A failed Start is answered with the process gone: its client deletes the
    /// container next, which needs it stopped.
    async fn end_failed_start(&self) {
        if tokio::time::timeout(LAST_WORDS, self.wait()).await.is_ok() {
            return;
        }
        match self.kill(libc::SIGKILL, false) {
            Ok(()) => drop(self.wait().await),
            Err(error) => warn!("{error}"),
        }
    }

    /// Sends `signal` to the first process, or to all.
    ///
    /// # Errors
    /// When the process has ended, or the kernel refuses.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), TaskError> {
        let finished = self.exit.borrow().is_some();
        if all {
            // Also after the end of the first process: others may be left.
            match self.cgroup.kill_all(signal) {
                Ok(()) => return Ok(()),
                // The cgroup goes with the container.
                Err(_) if finished => return Err(TaskError::Finished(self.id.clone())),
                Err(error) => return Err(error.into()),
            }
        }
        if finished {
            return Err(TaskError::Finished(self.id.clone()));
        }
        send(self.pid, signal).map_err(|source| TaskError::Signal {
            id: self.id.clone(),
            source,
        })
    }

    /// All processes of the container.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, TaskError> {
        if self.exit.borrow().is_some() && !self.shares_pids {
            return Ok(Vec::new());
        }
        let pids = self.cgroup.pids()?;
        Ok(pids.into_iter().map(i32::unsigned_abs).collect())
    }

    /// Lets the program see the end of its stdin once no client writes to it.
    pub fn close_stdin(&self) {
        self.lock_kept().close_stdin();
    }

    /// Waits for the end.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(|| self.lost()),
            Err(_) => self.lost(),
        }
    }

    /// The sender lives as long as the task, so this is never seen; killed is
    /// the honest answer for an end nobody saw.
    fn lost(&self) -> Exit {
        Exit {
            status: 128 + libc::SIGKILL.unsigned_abs(),
            at: now(),
        }
    }

    /// Removes a container that has ended or was never started. The caller
    /// takes it from the table.
    ///
    /// # Errors
    /// When it runs, or another Delete has removed it meanwhile.
    pub async fn delete(&self) -> Result<Exit, TaskError> {
        let mut deleted = self.deleted.lock().await;
        if *deleted {
            return Err(TaskError::Deleted(self.id.clone()));
        }
        let exit = {
            let life = self.life.lock().await;
            let exit = self.exit.borrow().clone();
            if exit.is_none() {
                if self.is_started() {
                    return Err(self.refuse("delete"));
                }
                self.kill(libc::SIGKILL, false)?;
            }
            drop(life);
            match exit {
                Some(exit) => exit,
                None => self.wait().await,
            }
        };
        if let Err(error) = self.bundle.remove(&self.id) {
            // containerd forgets the container all the same; `delete` and the
            // removal of the bundle try again.
            warn!("container {}: {error}", self.id);
        }
        let kept = std::mem::take(&mut *self.lock_kept());
        kept.close().await;
        self.publisher.publish(&Event::Delete(TaskDelete {
            container_id: self.id.clone(),
            pid: self.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.clone()),
            ..TaskDelete::default()
        }));
        *deleted = true;
        Ok(exit)
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
