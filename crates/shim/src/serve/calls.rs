//! The task API's calls as ttrpc delivers them.
//!
//! Source: containerd, `api/runtime/task/v3/shim.proto`.

use std::sync::Arc;

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

use super::error::{status, unimplemented};
use super::service::Service;

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
#[derive(Clone, Debug)]
pub struct Calls(Arc<Service>);

impl Calls {
    /// Calls on `service`.
    pub fn on(service: Arc<Service>) -> Self {
        Self(service)
    }

    /// Sees a call that changes something through to its end: ttrpc drops what it
    /// waits for, wherever that is, when the caller's connection is closed.
    async fn whole<T, F>(&self, call: impl FnOnce(Arc<Service>) -> F) -> TtrpcResult<T>
    where
        T: Send + 'static,
        F: Future<Output = TtrpcResult<T>> + Send + 'static,
    {
        tokio::spawn(call(self.0.clone()))
            .await
            .unwrap_or_else(|error| Err(status(Code::INTERNAL, error.to_string())))
    }
}

#[async_trait]
impl TaskApi for Calls {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> TtrpcResult<CreateTaskResponse> {
        self.whole(async move |service| service.create(request).await)
            .await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        self.whole(async move |service| service.start(request).await)
            .await
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> TtrpcResult<DeleteResponse> {
        self.whole(async move |service| service.delete(request).await)
            .await
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> TtrpcResult<Empty> {
        self.0.retire();
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let task = self.0.task(&request.id)?;
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
        let task = self.0.task(&request.id)?;
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
        let exit = self.0.process(&request.id, &request.exec_id)?.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at),
            ..WaitResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let task = self.0.task(&request.id)?;
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
        let process = self.0.process(&request.id, &request.exec_id)?;
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
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            // containerd also connects where there is no task (yet).
            task_pid: self
                .0
                .task(&request.id)
                .map(|task| task.pid())
                .unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> TtrpcResult<Empty> {
        self.0.task(&request.id)?.add_exec(request)?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let process = self.0.process(&request.id, &request.exec_id)?;
        if !request.exec_id.is_empty() && process.exit().is_some() {
            return Err(process.refuse("resize").into());
        }
        process.resize(request.width, request.height)?;
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        self.whole(async move |service| {
            service.task(&request.id)?.pause().await?;
            Ok(Empty::default())
        })
        .await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        self.0.task(&request.id)?.resume()?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(unimplemented("Checkpoint"))
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let task = self.0.task(&request.id)?;
        task.update(&request.resources.unwrap_or_default().value)?;
        Ok(Empty::default())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let metrics = self.0.task(&request.id)?.metrics()?;
        Ok(StatsResponse {
            stats: MessageField::some(metrics),
            ..StatsResponse::default()
        })
    }
}
