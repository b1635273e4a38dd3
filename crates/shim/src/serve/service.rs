//! The task service: containerd's calls on the containers of one pod.
//!
//! Source: containerd, `api/runtime/task/v3/shim.proto`.

use std::collections::HashMap;
use std::path::PathBuf;
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
use containerd_shim::protos::ttrpc::{self, Code, get_status};
use log::warn;
use tokio::sync::Notify;
use wisp_container::{Bundle, CreateRequest, RootfsMount, launch};

use super::events::Publisher;
use super::options::config_path;
use super::reaper::Reaper;
use super::stdio::{Kept, Owner, Streams};
use super::task::{Parts, Task, TaskError};

/// The pod's containers.
type Table = HashMap<String, Slot>;

#[derive(Clone, Debug)]
enum Slot {
    /// Being created; Delete cuts that short.
    Creating(Arc<Creation>),
    /// There.
    Ready(Arc<Task>),
}

/// A Create under way.
#[derive(Debug, Default)]
struct Creation {
    cancel: Notify,
    ended: Notify,
}

/// A daemon that nobody has called for this long was started by a `start` that
/// containerd gave up, and nobody knows of it.
const UNCALLED: Duration = Duration::from_secs(10);

/// Implements the task API.
#[derive(Debug)]
pub struct Service {
    namespace: String,
    containerd: String,
    reaper: Reaper,
    publisher: Publisher,
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
            return Err(not_found(id));
        };
        if exec_id.is_empty() {
            Ok(task)
        } else {
            Err(status(
                Code::NOT_FOUND,
                format!("container {id} has no exec process {exec_id}"),
            ))
        }
    }

    async fn create_task(
        &self,
        request: CreateTaskRequest,
        creation: &Creation,
    ) -> Result<Arc<Task>, ttrpc::Error> {
        if !request.checkpoint.is_empty() {
            return Err(unimplemented("Create from a checkpoint"));
        }
        if request.terminal {
            return Err(unimplemented("a terminal (ctr -t, tty: true)"));
        }
        let config = config_path(request.options.as_ref())
            .map_err(|error| status(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let owner = Owner {
            namespace: &self.namespace,
            id: &request.id,
        };
        let (stdio, kept) = streams
            .open(owner, &self.reaper)
            .await
            .map_err(|error| status(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        let create = CreateRequest {
            namespace: self.namespace.clone(),
            id: request.id,
            bundle: PathBuf::from(&request.bundle),
            rootfs: request
                .rootfs
                .into_iter()
                .map(|mount| RootfsMount {
                    kind: mount.type_,
                    source: mount.source,
                    options: mount.options,
                })
                .collect(),
            containerd: self.containerd.clone(),
            config,
        };
        let starting = self.reaper.starting();
        let made = async {
            let mut launch = launch(&create, stdio).await?;
            let created = tokio::select! {
                created = launch.created() => Some(created?),
                () = creation.cancel.notified() => None,
            };
            match created {
                Some(created) => Ok((launch, created)),
                None => {
                    launch.kill();
                    Err(TaskError::Deleted(create.id.clone()))
                }
            }
        }
        .await;
        match made {
            Ok((launch, created)) => {
                let ended = self.reaper.exit_of(created.pid);
                drop(starting);
                let parts = Parts {
                    id: create.id,
                    bundle: Bundle::new(create.bundle),
                    created,
                    streams,
                    kept,
                    launch,
                };
                Ok(Task::new(parts, ended, self.publisher.clone()))
            }
            Err(error) => {
                drop(starting);
                self.undo(&create, kept).await;
                Err(refused(&error))
            }
        }
    }

    /// The init role cleans up after itself; this is for one that was killed.
    async fn undo(&self, create: &CreateRequest, kept: Kept) {
        if let Err(error) = Bundle::new(&create.bundle).abandon(&create.id) {
            warn!("container {}: {error}", create.id);
        }
        kept.close().await;
    }
}

fn status(code: Code, text: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, text.into()))
}

fn not_found(id: &str) -> ttrpc::Error {
    status(Code::NOT_FOUND, format!("container {id} not found"))
}

fn unimplemented(what: &str) -> ttrpc::Error {
    status(
        Code::UNIMPLEMENTED,
        format!("{what} is not implemented by wisp"),
    )
}

fn refused(error: &TaskError) -> ttrpc::Error {
    let code = match error {
        TaskError::State { .. } => Code::FAILED_PRECONDITION,
        TaskError::Finished(_) | TaskError::Deleted(_) => Code::NOT_FOUND,
        TaskError::Container(_) | TaskError::Signal { .. } => Code::UNKNOWN,
    };
    status(code, error.to_string())
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
                return Err(status(
                    Code::ALREADY_EXISTS,
                    format!("container {id} already exists"),
                ));
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
        task.start().await.map_err(|error| refused(&error))?;
        Ok(StartResponse {
            pid: task.pid(),
            ..StartResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let task = self.task(&request.id, &request.exec_id)?;
        let (status, exit) = task.status();
        let streams = task.streams().clone();
        Ok(StateResponse {
            id: task.id().to_owned(),
            bundle: task.bundle().path().to_string_lossy().into_owned(),
            pid: task.pid(),
            status: EnumOrUnknown::new(status),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
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
        task.kill(signal, request.all)
            .map_err(|error| refused(&error))?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let exit = self.task(&request.id, &request.exec_id)?.wait().await;
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
        let exit = task.delete().await.map_err(|error| refused(&error))?;
        self.table().remove(&request.id);
        Ok(DeleteResponse {
            pid: task.pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at),
            ..DeleteResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let pids = self
            .task(&request.id, "")?
            .pids()
            .map_err(|error| refused(&error))?;
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
            task.close_stdin();
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

    async fn resize_pty(&self, _: &TtrpcContext, _: ResizePtyRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("ResizePty"))
    }

    async fn pause(&self, _: &TtrpcContext, _: PauseRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Pause"))
    }

    async fn resume(&self, _: &TtrpcContext, _: ResumeRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Resume"))
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Checkpoint"))
    }

    async fn update(&self, _: &TtrpcContext, _: UpdateTaskRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Update"))
    }

    async fn stats(&self, _: &TtrpcContext, _: StatsRequest) -> TtrpcResult<StatsResponse> {
        Err(unimplemented("Stats"))
    }
}
