//! Exec: further processes in a container.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard, PoisonError};

use containerd_shim::protos::api::{ExecProcessRequest, Status};
use containerd_shim::protos::events::task::{TaskExecAdded, TaskExecStarted, TaskExit};
use containerd_shim::protos::protobuf::MessageField;
use log::{info, warn};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::oneshot::Receiver;
use wisp_container::{ExecRequest, Launch, Process as ProcessSpec, Share, Shares, launch_exec};

use super::error::TaskError;
use super::events::Event;
use super::process::{Exit, Process};
use super::service::Service;
use super::stdio::{Kept, Owner, Streams};
use super::task::Task;

/// A container's further processes by exec id.
pub type Execs = HashMap<String, Arc<Exec>>;

/// What the daemon keeps of a container for those who join it later.
#[derive(Debug)]
pub struct Host {
    /// Its first process.
    pub first: Option<OwnedFd>,
    /// Where its guests count what memory they have.
    pub shares: Shares,
}

/// A further process, from Exec until Delete.
#[derive(Debug)]
pub struct Exec {
    id: String,
    process: Arc<Process>,
    spec: ProcessSpec,
    /// Start and Delete exclude each other.
    life: AsyncMutex<()>,
}

impl Task {
    fn execs(&self) -> MutexGuard<'_, Execs> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exec(&self, id: &str) -> Result<Arc<Exec>, TaskError> {
        let found = self.execs().get(id).cloned();
        found.ok_or_else(|| TaskError::NotFound(self.name_of(id)))
    }

    fn name_of(&self, exec: &str) -> String {
        format!("process {exec} of container {}", self.id())
    }

    /// The process `exec`, or the first one if that is empty.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn process_of(&self, exec: &str) -> Result<Arc<Process>, TaskError> {
        match exec {
            "" => Ok(self.process().clone()),
            id => Ok(self.exec(id)?.process.clone()),
        }
    }

    /// The exec id of the process `pid`, if it was added.
    pub fn exec_with(&self, pid: u32) -> Option<String> {
        let execs = self.execs();
        let mut all = execs.values();
        all.find(|exec| exec.process.pid() == pid)
            .map(|exec| exec.id.clone())
    }

    /// Refuses the call `what` unless the container's processes run, or may.
    fn must_go(&self, what: &'static str) -> Result<(), TaskError> {
        match self.status_of(self.process()).0 {
            Status::RUNNING | Status::CREATED => Ok(()),
            _ => Err(self.refuse(what)),
        }
    }

    /// Adds a process that waits for its Start.
    ///
    /// # Errors
    /// When there is one of that id, the container has stopped or is paused, or
    /// the spec is not a process's.
    pub fn add_exec(&self, request: ExecProcessRequest) -> Result<(), TaskError> {
        let id = request.exec_id;
        let name = self.name_of(&id);
        if self.execs().contains_key(&id) {
            return Err(TaskError::Exists(name));
        }
        self.must_go("execute in")?;
        let spec = request.spec.unwrap_or_default().value;
        let mut spec: ProcessSpec = serde_json::from_slice(&spec)
            .map_err(|error| TaskError::Invalid(format!("{name}: spec: {error}")))?;
        spec.set_terminal(Some(request.terminal));
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let exec = Exec {
            id: id.clone(),
            process: Arc::new(Process::new(name, streams)),
            spec,
            life: AsyncMutex::new(()),
        };
        self.execs().insert(id.clone(), Arc::new(exec));
        self.publisher.publish(&Event::ExecAdded(TaskExecAdded {
            container_id: self.id().to_owned(),
            exec_id: id,
            ..TaskExecAdded::default()
        }));
        Ok(())
    }

    /// Starts the process `id`; answers its pid.
    ///
    /// # Errors
    /// When it has been started, or why its program cannot run. Nothing is left
    /// of it then.
    pub async fn start_exec(&self, id: &str, service: &Service) -> Result<u32, TaskError> {
        let exec = self.exec(id)?;
        let _life = exec.life.lock().await;
        let process = &exec.process;
        if process.is_started() || process.exit().is_some() {
            return Err(process.refuse("start"));
        }
        self.must_go("execute in")?;
        let owner = Owner {
            namespace: &service.namespace,
            id: self.id(),
        };
        let (stdio, mut kept) = process
            .streams()
            .open(owner, &service.reaper)
            .await
            .map_err(|error| TaskError::Invalid(format!("{}: {error:#}", process.name())))?;
        if let Err(error) = kept.hold_stdin() {
            warn!("{}: {error:#}", process.name());
        }
        let starting = service.reaper.starting();
        let added = async {
            let request = self.exec_request(&exec, service);
            let first = self
                .host
                .first
                .as_ref()
                .ok_or_else(|| self.refuse("join"))?;
            let share = self.host.shares.take()?;
            let mut launch = launch_exec(request, first, &share, stdio).await?;
            let pid = launch.added().await?;
            if let Err(error) = kept.connect(launch.terminal()) {
                launch.kill();
                let ended = service.reaper.exit_of(pid);
                tokio::spawn(async move {
                    let _ = ended.await;
                    drop(share);
                });
                return Err(TaskError::Invalid(format!("{}: {error:#}", process.name())));
            }
            Ok((launch, share, pid))
        }
        .await;
        let (launch, share, pid) = match added {
            Ok(added) => added,
            Err(error) => {
                drop(starting);
                kept.close().await;
                return Err(error);
            }
        };
        let ended = service.reaper.exit_of(pid);
        drop(starting);
        process.created(pid, kept);
        self.run_exec(&exec, launch, share, ended).await?;
        Ok(process.pid())
    }

    fn exec_request(&self, exec: &Exec, service: &Service) -> ExecRequest {
        ExecRequest {
            namespace: service.namespace.clone(),
            id: self.id().to_owned(),
            bundle: self.bundle().path().to_owned(),
            containerd: service.containerd.clone(),
            kind: self.kind,
            pid: i32::try_from(self.pid()).unwrap_or_default(),
            pidfd: -1,
            ledger: -1,
            place: 0,
            cgroup: self.cgroup.clone(),
            process: exec.spec.clone(),
        }
    }

    /// Waits until the program runs, announces that, and watches for its end.
    async fn run_exec(
        &self,
        exec: &Arc<Exec>,
        launch: Launch,
        share: Share,
        ended: Receiver<u32>,
    ) -> Result<(), TaskError> {
        let process = &exec.process;
        if let Err(error) = launch.running().await {
            // It says why it cannot run, and ends; or is ended.
            if let Err(still) = process.signal(libc::SIGKILL) {
                warn!("{still}");
            }
            let _ = ended.await;
            process.close_streams().await;
            process.created(0, Kept::default());
            return Err(error.into());
        }
        process.started();
        self.publisher.publish(&Event::ExecStarted(TaskExecStarted {
            container_id: self.id().to_owned(),
            exec_id: exec.id.clone(),
            pid: process.pid(),
            ..TaskExecStarted::default()
        }));
        let (exec, container) = (exec.clone(), self.id().to_owned());
        let publisher = self.publisher.clone();
        tokio::spawn(async move {
            let Ok(status) = ended.await else { return };
            drop(share);
            info!("{}: ended with {status}", exec.process.name());
            let Exit { status, at } = exec.process.ended(status);
            publisher.publish(&Event::Exit(TaskExit {
                container_id: container,
                id: exec.id.clone(),
                pid: exec.process.pid(),
                exit_status: status,
                exited_at: MessageField::some(at),
                ..TaskExit::default()
            }));
        });
        Ok(())
    }

    /// Removes the process `id`, which has ended or was never started; answers
    /// its pid and its end.
    ///
    /// # Errors
    /// When it runs or there is none.
    pub async fn delete_exec(&self, id: &str) -> Result<(u32, Option<Exit>), TaskError> {
        let exec = self.exec(id)?;
        let _life = exec.life.lock().await;
        let exit = exec.process.exit();
        if exit.is_none() && exec.process.is_started() {
            return Err(exec.process.refuse("delete"));
        }
        if self.execs().remove(id).is_none() {
            return Err(TaskError::NotFound(exec.process.name().to_owned()));
        }
        exec.process.close_streams().await;
        if exit.is_none() {
            // Whoever waits for what will never be is told so.
            exec.process.ended(0);
        }
        Ok((exec.process.pid(), exit))
    }

    /// Lets go of all that was executed in a container that is gone.
    pub async fn forget_execs(&self) {
        let execs = std::mem::take(&mut *self.execs());
        for exec in execs.into_values() {
            exec.process.close_streams().await;
        }
    }
}
