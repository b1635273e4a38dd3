//! One container in the daemon: its first process, and what moves it on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use containerd_shim::protos::api::Status;
use containerd_shim::protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim::protos::protobuf::MessageField;
use log::{debug, info, warn};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use wisp_container::cgroup::Cgroup;
use wisp_container::hooks::Moment;
use wisp_container::trace::Trace;
use wisp_container::{Bundle, ContainerError, Created, Launch, ProgramKind, Shares, pidfd};

use super::error::TaskError;
use super::events::{Event, Publisher};
use super::exec::{Execs, Host};
use super::oom::Oom;
use super::pause::Freeze;
use super::process::{Exit, Process};
use super::stdio::{Kept, Streams};

/// How long a process that reported why it cannot run may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

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
    /// Where its guests count what memory they have.
    pub shares: Shares,
}

/// A container whose first process exists or has existed.
#[derive(Debug)]
pub struct Task {
    id: String,
    bundle: Bundle,
    process: Arc<Process>,
    pub(super) cgroup: Cgroup,
    /// No pid namespace of its own: its processes outlive its first one.
    shares_pids: bool,
    pub(super) kind: ProgramKind,
    /// Whether its spec has hooks for this process to run.
    hooks: bool,
    // Start and Delete exclude each other, and the end of the process is
    // announced after the start of it. The launch is there until Start.
    life: AsyncMutex<Option<Launch>>,
    pub(super) freeze: Mutex<Freeze>,
    pub(super) execs: Mutex<Execs>,
    pub(super) host: Host,
    oom: Option<Oom>,
    deleted: AsyncMutex<bool>,
    pub(super) publisher: Publisher,
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
                    hooks,
                },
            streams,
            kept,
            launch,
            shares,
        } = parts;
        let first = pidfd::open(pid)
            .inspect_err(|errno| warn!("container {id}: pidfd of its process {pid}: {errno}"))
            .ok();
        info!("container {id}: created, {kind:?}, pid {pid}");
        let process = Process::new(format!("container {id}"), streams);
        process.created(pid, kept);
        publisher.publish(&Event::Create(TaskCreate {
            container_id: id.clone(),
            bundle: bundle.path().to_string_lossy().into_owned(),
            pid: process.pid(),
            io: MessageField::some(TaskIO {
                stdin: process.streams().stdin.clone(),
                stdout: process.streams().stdout.clone(),
                stderr: process.streams().stderr.clone(),
                terminal: process.streams().terminal,
                ..TaskIO::default()
            }),
            ..TaskCreate::default()
        }));
        let task = Arc::new(Self {
            oom: Oom::watch(&id, &cgroup, &publisher),
            id,
            bundle,
            process: Arc::new(process),
            cgroup,
            shares_pids,
            kind,
            hooks,
            life: AsyncMutex::new(Some(launch)),
            freeze: Mutex::default(),
            execs: Mutex::default(),
            host: Host { first, shares },
            deleted: AsyncMutex::new(false),
            publisher,
        });
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
        Trace::of(&self.id).mark("daemon: ended");
        info!("container {}: ended with {status}", self.id);
        if self.shares_pids
            && let Err(error) = self.cgroup.kill_all(libc::SIGKILL)
        {
            warn!("container {}: {error}", self.id);
        }
        if let Some(oom) = &self.oom {
            // Whoever hears of the end knows the reason by then.
            oom.stop();
        }
        let Exit { status, at } = self.process.ended(status);
        self.publisher.publish(&Event::Exit(TaskExit {
            container_id: self.id.clone(),
            id: self.id.clone(),
            pid: self.pid(),
            exit_status: status,
            exited_at: MessageField::some(at),
            ..TaskExit::default()
        }));
        drop(life);
        // Who reads what it has said has gone with containerd, and comes back
        // with it.
        if self.publisher.is_away().await {
            self.process.keep_unread().await;
        }
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether nothing of it runs: it has ended, or was never started.
    pub fn is_over(&self) -> bool {
        self.process.exit().is_some() || !self.process.is_started()
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Its first process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The id of its first process, in the daemon's pid namespace.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The state of its process `process` in containerd's terms, and how it
    /// ended if it did.
    pub fn status_of(&self, process: &Process) -> (Status, Option<Exit>) {
        match (process.status(), self.frozen()) {
            ((Status::RUNNING, exit), Freeze::Pausing) => (Status::PAUSING, exit),
            ((Status::RUNNING, exit), Freeze::Paused) => (Status::PAUSED, exit),
            (status, _) => status,
        }
    }

    /// How far Pause has come.
    pub fn frozen(&self) -> Freeze {
        *self.freeze.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the program run; answers when it does (HTTP components: when the
    /// port listens).
    ///
    /// # Errors
    /// When it runs or has run already, or the program's reason not to.
    pub async fn start(&self) -> Result<(), TaskError> {
        let trace = Trace::of(&self.id);
        trace.mark("daemon: Start called");
        let mut life = self.life.lock().await;
        if self.process.exit().is_some() {
            return Err(self.process.refuse("start"));
        }
        let Some(launch) = life.take() else {
            return Err(self.process.refuse("start"));
        };
        self.process.hold_stdin();
        if let Err(error) = launch.start(self.kind, &self.bundle).await {
            drop(life);
            self.end_failed_start().await;
            return Err(error.into());
        }
        self.process.started();
        self.publisher.publish(&Event::Start(TaskStart {
            container_id: self.id.clone(),
            pid: self.pid(),
            ..TaskStart::default()
        }));
        trace.mark("daemon: started");
        self.run_hooks(Moment::Poststart, self.process.exit().is_none())
            .await;
        debug!("container {}: started", self.id);
        Ok(())
    }

    /// A failed Start is answered with the process gone: its client deletes the
    /// container next, which needs it stopped.
    async fn end_failed_start(&self) {
        let gone = tokio::time::timeout(LAST_WORDS, self.process.wait()).await;
        if gone.is_ok() {
            return;
        }
        match self.process.signal(libc::SIGKILL) {
            Ok(()) => drop(self.process.wait().await),
            Err(error) => warn!("{error}"),
        }
    }

    /// Hooks may take their time, and the pod's other containers are served
    /// meanwhile.
    async fn run_hooks(&self, moment: Moment, lives: bool) {
        if !self.hooks {
            return;
        }
        let (bundle, id) = (self.bundle.clone(), self.id.clone());
        let pid = i32::try_from(self.pid()).ok().filter(|_| lives);
        let run = tokio::task::spawn_blocking(move || bundle.run_hooks(&id, moment, pid));
        if let Err(error) = run.await {
            warn!("container {}: hooks: {error}", self.id);
        }
    }

    /// Sends `signal` to the first process, or to all.
    ///
    /// # Errors
    /// When the process has ended, or the kernel refuses.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), TaskError> {
        let finished = self.process.exit().is_some();
        if all {
            // Also after the end of the first process: others may be left.
            let reached = self.cgroup.pids();
            match self.cgroup.kill_all(signal) {
                // Somebody may have removed the cgroup, or moved the process.
                Ok(()) if finished => {}
                Ok(()) => {
                    let pid = i32::try_from(self.pid()).unwrap_or_default();
                    if !reached?.contains(&pid) {
                        self.process.signal(signal)?;
                    }
                }
                // The cgroup goes with the container.
                Err(_) if finished => return Err(TaskError::Finished(self.process.name().into())),
                Err(error) => return Err(error.into()),
            }
        } else {
            self.process.signal(signal)?;
        }
        if signal == libc::SIGKILL {
            self.thaw_killed();
        }
        Ok(())
    }

    /// All processes of the container. Its first one is named until Delete, be
    /// it alive or not: containerd 2, when it comes back after a crash, takes a
    /// task without processes for one that was never created, and removes it
    /// with its exit code.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, TaskError> {
        let ended = self.process.exit().is_some();
        let mut pids = Vec::new();
        if !ended || self.shares_pids {
            let found = self.cgroup.pids()?;
            pids.extend(found.into_iter().map(i32::unsigned_abs));
        }
        if ended && !pids.contains(&self.pid()) {
            pids.push(self.pid());
        }
        Ok(pids)
    }

    /// Removes what the container has made. A native one's root is mounted where
    /// the host sees it, and unmounting that writes to the disk what was written
    /// to it: the pod's other containers do not wait for that, nor for hooks.
    async fn remove(&self) -> Result<(), ContainerError> {
        if self.kind == ProgramKind::Wasm {
            return self.bundle.remove(&self.id, &self.cgroup);
        }
        let (bundle, id, cgroup) = (self.bundle.clone(), self.id.clone(), self.cgroup.clone());
        tokio::task::spawn_blocking(move || bundle.remove(&id, &cgroup))
            .await
            .unwrap_or_else(|error| Err(ContainerError::Init(format!("remove: {error}"))))
    }

    /// Removes a container that has ended or was never started. The caller
    /// takes it from the table.
    ///
    /// # Errors
    /// When it runs, or another Delete has removed it meanwhile.
    pub async fn delete(&self) -> Result<Exit, TaskError> {
        let trace = Trace::of(&self.id);
        trace.mark("daemon: Delete called");
        let mut deleted = self.deleted.lock().await;
        if *deleted {
            return Err(TaskError::NotFound(self.process.name().into()));
        }
        let exit = {
            let life = self.life.lock().await;
            let exit = self.process.exit();
            if exit.is_none() {
                if self.process.is_started() {
                    return Err(self.refuse("delete"));
                }
                self.kill(libc::SIGKILL, false)?;
            }
            drop(life);
            match exit {
                Some(exit) => exit,
                None => self.process.wait().await,
            }
        };
        if let Err(error) = self.remove().await {
            // containerd forgets the container all the same; `delete` and the
            // removal of the bundle try again.
            warn!("container {}: {error}", self.id);
        }
        self.run_hooks(Moment::Poststop, false).await;
        self.process.close_streams().await;
        self.forget_execs().await;
        self.publisher.publish(&Event::Delete(TaskDelete {
            container_id: self.id.clone(),
            pid: self.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.clone()),
            ..TaskDelete::default()
        }));
        trace.mark("daemon: deleted");
        *deleted = true;
        Ok(exit)
    }
}
