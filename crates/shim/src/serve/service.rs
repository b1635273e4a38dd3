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
use containerd_shim::protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim::protos::shim_async::Task as TaskApi;
use containerd_shim::protos::ttrpc::asynchronous::TtrpcContext;
use containerd_shim::protos::ttrpc::{self, Code};
use log::warn;
use tokio::sync::Notify;

use super::create::Creation;
use super::error::{TaskError, status, unimplemented};
use super::events::Publisher;
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

/// Implements the task API.
#[derive(Debug)]
pub struct Service {
    pub(super) namespace: String,
    pub(super) containerd: String,
    pub(super) reaper: Reaper,
    pub(super) publisher: Publisher,
    tasks: Mutex<Table>,
    called: AtomicBool,
    shutdown: Notify,
}

impl Service {
    /// A service without containers. `containerd` is its gRPC socket.
    pub fn new(
        namespace: String,
        containerd: String,
        reaper: Reaper,
        publisher: Publisher,
    ) -> Self {
        Self {
            namespace,
            containerd,
            reaper,
            publisher,
            tasks: Mutex::default(),
            called: AtomicBool::new(false),
            shutdown: Notify::new(),
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
        if self.called.load(Ordering::Relaxed) {
            asked.await;
        } else {
            warn!("nobody has called within {UNCALLED:?}");
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

    fn task(&self, id: &str, exec_id: &str) -> Result<Arc<Task>, ttrpc::Error> {
        let slot = self.table().get(id).cloned();
        let Some(Slot::Ready(task)) = slot else {
            return Err(TaskError::NotFound(format!("container {id}")).into());
        };
        if exec_id.is_empty() {
            Ok(task)
        } else {
            Err(TaskError::NotFound(format!("process {exec_id} of container {id}")).into())
        }
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
        let task = self.task(&request.id, &request.exec_id)?;
        task.start().await?;
        Ok(StartResponse {
            pid: task.pid(),
            ..StartResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let task = self.task(&request.id, &request.exec_id)?;
        let (status, exit) = task.status_of(task.process());
        let streams = task.process().streams().clone();
        Ok(StateResponse {
            id: task.id().to_owned(),
            bundle: task.bundle().path().to_string_lossy().into_owned(),
            pid: task.pid(),
            status: EnumOrUnknown::new(status),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
            exit_status: exit.as_ref().map(|exit| exit.status).unwrap_or_default(),
            exited_at: exit.map(|exit| exit.at).into(),
            ..StateResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let task = self.task(&request.id, &request.exec_id)?;
        let signal = i32::try_from(request.signal).map_err(|_| {
            status(
                Code::INVALID_ARGUMENT,
                format!("signal {} does not exist", request.signal),
            )
        })?;
        task.kill(signal, request.all)?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let exit = self
            .task(&request.id, &request.exec_id)?
            .process()
            .wait()
            .await;
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
        let task = self.task(&request.id, &request.exec_id)?;
        let exit = task.delete().await?;
        self.table().remove(&request.id);
        Ok(DeleteResponse {
            pid: task.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at),
            ..DeleteResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let pids = self.task(&request.id, "")?.pids()?;
        Ok(PidsResponse {
            processes: pids
                .into_iter()
                .map(|pid| ProcessInfo {
                    pid,
                    ..ProcessInfo::default()
                })
                .collect(),
            ..PidsResponse::default()
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        let task = self.task(&request.id, &request.exec_id)?;
        if request.stdin {
            task.process().close_stdin();
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
                .task(&request.id, "")
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
        }
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Exec"))
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let task = self.task(&request.id, &request.exec_id)?;
        task.process().resize(request.width, request.height)?;
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        self.task(&request.id, "")?.pause().await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        self.task(&request.id, "")?.resume()?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Checkpoint"))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let task = self.task(&request.id, "")?;
        task.update(&request.resources.unwrap_or_default().value)?;
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let metrics = self.task(&request.id, "")?.metrics()?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics),
            ..StatsResponse::default()
        })
    }
}
