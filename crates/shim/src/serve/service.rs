//! The task service: containerd's calls on the containers of one pod.
//!
//! Source: containerd, `api/runtime/task/v3/shim.proto`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::TtrpcResult;
use containerd_shim::protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{CodedOutputStream, EnumOrUnknown, MessageField};
use containerd_shim::protos::shim_async::Task as TaskApi;
use containerd_shim::protos::ttrpc::Code;
use containerd_shim::protos::ttrpc::asynchronous::TtrpcContext;
use log::warn;
use tokio::sync::Notify;

use crate::orphans;

use super::create::Creation;
use super::error::{TaskError, status, unimplemented};
use super::events::Publisher;
use super::process::Process;
use super::reaper::Reaper;
use super::task::Task;

/// The pod's containers.
type Table = HashMap<String, Slot>;

#[derive(Clone, Debug)]
enum Slot {
    /// Being created; Delete cuts that short.
    Creating(Arc<Creation>),
    /// There.
    Ready(Arc<Task>),
}

/// A daemon that nobody has called for this long was started by a `start` that
/// containerd gave up, and nobody knows of it.
const UNCALLED: Duration = Duration::from_secs(10);

/// How long a daemon that was asked to end while it had containers waits, once
/// they are gone, for a call that says otherwise. Usually that is the same
/// question again; containerd 2 does not repeat it if a pod's first container
/// has ended before the others.
const RETIRED: Duration = Duration::from_secs(5);

/// What Pids says of a process that Exec has added: `ProcessDetails` of
/// containerd's `api/types/runc/options/oci.proto`, whose only field is the id.
fn details(exec: &str) -> Any {
    let mut value = Vec::new();
    let mut output = CodedOutputStream::vec(&mut value);
    let written = output.write_string(1, exec).and_then(|()| output.flush());
    drop(output);
    if let Err(error) = written {
        warn!("process {exec}: {error}");
    }
    Any {
        type_url: "containerd.runc.v1.ProcessDetails".to_owned(),
        value,
        ..Any::default()
    }
}

/// Implements the task API.
#[derive(Debug)]
pub struct Service {
    pub(super) namespace: String,
    /// The pod's id, which is that of its first container.
    pub(super) pod: String,
    pub(super) containerd: String,
    pub(super) reaper: Reaper,
    pub(super) publisher: Publisher,
    tasks: Mutex<Table>,
    called: AtomicBool,
    shutdown: Notify,
    /// The end was asked for while there were containers.
    unwanted: AtomicBool,
    emptied: Notify,
}

impl Service {
    /// A service of `pod` without containers. `containerd` is its gRPC socket.
    pub fn new(
        namespace: String,
        pod: String,
        containerd: String,
        reaper: Reaper,
        publisher: Publisher,
    ) -> Self {
        Self {
            namespace,
            pod,
            containerd,
            reaper,
            publisher,
            tasks: Mutex::default(),
            called: AtomicBool::new(false),
            shutdown: Notify::new(),
            unwanted: AtomicBool::new(false),
            emptied: Notify::new(),
        }
    }

    /// Waits until containerd has asked for the end, or has never called.
    pub async fn shut_down(&self) {
        let asked = self.shutdown.notified();
        tokio::pin!(asked);
        tokio::select! {
            () = &mut asked => return,
            () = tokio::time::sleep(UNCALLED) => {}
        }
        if !self.called.load(Ordering::Relaxed) {
            warn!("nobody has called within {UNCALLED:?}");
            return;
        }
        loop {
            tokio::select! {
                () = &mut asked => return,
                () = self.emptied.notified() => {}
            }
            tokio::select! {
                () = &mut asked => return,
                () = tokio::time::sleep(RETIRED) => {}
            }
            if self.is_idle() {
                return;
            }
        }
    }

    /// Whether no container is left.
    pub fn is_idle(&self) -> bool {
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.called.store(true, Ordering::Relaxed);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task(&self, id: &str) -> Result<Arc<Task>, TaskError> {
        match self.table().get(id) {
            Some(Slot::Ready(task)) => Ok(task.clone()),
            _ => Err(TaskError::NotFound(format!("container {id}"))),
        }
    }

    /// A container's process: `exec`, or the first one if that is empty.
    fn process(&self, id: &str, exec: &str) -> Result<Arc<Process>, TaskError> {
        self.task(id)?.process_of(exec)
    }
}

#[async_trait]
impl TaskApi for Service {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> TtrpcResult<CreateTaskResponse> {
        let id = request.id.clone();
        let creation = Arc::new(Creation::default());
        {
            let mut table = self.table();
            if table.contains_key(&id) {
                return Err(TaskError::Exists(format!("container {id}")).into());
            }
            table.insert(id.clone(), Slot::Creating(creation.clone()));
        }
        let created = self.create_task(request, &creation).await;
        creation.ended.notify_waiters();
        match created {
            Ok(task) => {
                let pid = task.pid();
                self.table().insert(id, Slot::Ready(task));
                Ok(CreateTaskResponse {
                    pid,
                    ..CreateTaskResponse::default()
                })
            }
            Err(error) => {
                self.table().remove(&id);
                Err(error)
            }
        }
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        let task = self.task(&request.id)?;
        let pid = match request.exec_id.as_str() {
            "" => {
                task.start().await?;
                task.pid()
            }
            exec => task.start_exec(exec, self).await?,
        };
        Ok(StartResponse {
            pid,
            ..StartResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let task = self.task(&request.id)?;
        let process = task.process_of(&request.exec_id)?;
        let (status, exit) = task.status_of(&process);
        let streams = process.streams().clone();
        Ok(StateResponse {
            id: match request.exec_id.as_str() {
                "" => request.id,
                exec => exec.to_owned(),
            },
            bundle: task.bundle().path().to_string_lossy().into_owned(),
            pid: process.pid(),
            status: EnumOrUnknown::new(status),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
            exit_status: exit.as_ref().map(|exit| exit.status).unwrap_or_default(),
            exited_at: exit.map(|exit| exit.at).into(),
            exec_id: request.exec_id,
            ..StateResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let task = self.task(&request.id)?;
        let signal = i32::try_from(request.signal).map_err(|_| {
            status(
                Code::INVALID_ARGUMENT,
                format!("signal {} does not exist", request.signal),
            )
        })?;
        match request.exec_id.as_str() {
            "" => task.kill(signal, request.all)?,
            exec => task.process_of(exec)?.signal(signal)?,
        }
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let exit = self.process(&request.id, &request.exec_id)?.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at),
            ..WaitResponse::default()
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> TtrpcResult<DeleteResponse> {
        let slot = self.table().get(&request.id).cloned();
        if let Some(Slot::Creating(creation)) = slot {
            // The caller of Create has gone away. Whoever asks next must find
            // neither the container nor what was made of it so far.
            let ended = creation.ended.notified();
            creation.cancel.notify_one();
            ended.await;
        }
        let task = self.task(&request.id)?;
        if !request.exec_id.is_empty() {
            let (pid, exit) = task.delete_exec(&request.exec_id).await?;
            return Ok(DeleteResponse {
                pid,
                exit_status: exit.as_ref().map(|exit| exit.status).unwrap_or_default(),
                exited_at: exit.map(|exit| exit.at).into(),
                ..DeleteResponse::default()
            });
        }
        let exit = task.delete().await?;
        orphans::forget(&self.pod, task.bundle(), &request.id);
        {
            let mut table = self.table();
            table.remove(&request.id);
            if table.is_empty() && self.unwanted.load(Ordering::Relaxed) {
                self.emptied.notify_one();
            }
        }
        Ok(DeleteResponse {
            pid: task.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at),
            ..DeleteResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let task = self.task(&request.id)?;
        let processes = task.pids()?.into_iter().map(|pid| ProcessInfo {
            pid,
            info: task.exec_with(pid).map(|exec| details(&exec)).into(),
            ..ProcessInfo::default()
        });
        Ok(PidsResponse {
            processes: processes.collect(),
            ..PidsResponse::default()
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        let process = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::default())
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        request: ConnectRequest,
    ) -> TtrpcResult<ConnectResponse> {
        self.called.store(true, Ordering::Relaxed);
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            // containerd also connects where there is no task (yet).
            task_pid: self
                .task(&request.id)
                .map(|task| task.pid())
                .unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> TtrpcResult<Empty> {
        // The pod's other containers still need the daemon.
        if self.is_idle() {
            self.shutdown.notify_one();
        } else {
            self.unwanted.store(true, Ordering::Relaxed);
        }
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> TtrpcResult<Empty> {
        self.task(&request.id)?.add_exec(request)?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let process = self.process(&request.id, &request.exec_id)?;
        if !request.exec_id.is_empty() && process.exit().is_some() {
            return Err(process.refuse("resize").into());
        }
        process.resize(request.width, request.height)?;
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        self.task(&request.id)?.pause().await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        self.task(&request.id)?.resume()?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Checkpoint"))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let task = self.task(&request.id)?;
        task.update(&request.resources.unwrap_or_default().value)?;
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let metrics = self.task(&request.id)?.metrics()?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics),
            ..StatsResponse::default()
        })
    }
}
