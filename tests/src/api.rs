//! containerd's API, for what `ctr` cannot ask for. Calls block.

mod copies;
mod exec;
mod resources;

pub use self::exec::Exec;

use crate::containerd::Containerd;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, anyhow};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::MountsRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    CloseIoRequest, Container, CreateTaskRequest, DeleteTaskRequest, GetContainerRequest,
    GetRequest, KillRequest, ListPidsRequest, StartRequest, UpdateContainerRequest, WaitRequest,
};
use containerd_client::tonic::metadata::MetadataValue;
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Status};
use containerd_client::types::v1::Status as TaskStatus;
use prost_types::{Any, FieldMask};
use serde_json::Value;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A connection to one containerd, in one namespace.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    namespace: String,
}

/// The standard streams of a task as containerd passes them on: a FIFO's path,
/// an URI, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// They are a terminal.
    pub terminal: bool,
}

/// The code that a call was answered with: `Ok`, `NotFound`, ….
pub fn code<T>(answer: &Result<T>) -> String {
    match answer {
        Ok(_) => "Ok".to_owned(),
        Err(error) => {
            let text = format!("{error:#}");
            text.split(": ").nth(1).unwrap_or(&text).to_owned()
        }
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing answers at the socket.
    pub fn connect(node: &Containerd, namespace: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let channel = runtime
            .block_on(containerd_client::connect(node.socket()))
            .with_context(|| format!("connect to {}", node.socket().display()))?;
        Ok(Self {
            runtime,
            channel,
            namespace: namespace.to_owned(),
        })
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let namespace: MetadataValue<_> = self.namespace.parse()?;
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        Ok(request)
    }

    /// Runs a call to its end or the deadline. The error is containerd's text.
    fn call<T>(
        &self,
        what: &str,
        patience: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T> {
        let patience = wait::here(patience);
        self.runtime
            .block_on(async { tokio::time::timeout(patience, call).await })
            .map_err(|_| anyhow!("{what}: no answer within {patience:?}"))?
            .map_err(|status| anyhow!("{what}: {:?}: {}", status.code(), status.message()))
    }

    /// The container `id` as containerd knows it.
    ///
    /// # Errors
    /// containerd's.
    pub fn container(&self, id: &str) -> Result<Container> {
        let request = self.request(GetContainerRequest { id: id.to_owned() })?;
        let mut client = ContainersClient::new(self.channel.clone());
        self.call("get container", PATIENCE, client.get(request))?
            .into_inner()
            .container
            .context("get container: the answer has none")
    }

    /// Changes the OCI spec of a container that has no task yet.
    ///
    /// # Errors
    /// containerd's.
    pub fn edit_spec(&self, id: &str, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut container = self.container(id)?;
        let old = container.spec.take().context("the container has no spec")?;
        let mut spec: Value = serde_json::from_slice(&old.value)?;
        edit(&mut spec);
        container.spec = Some(Any {
            type_url: old.type_url,
            value: serde_json::to_vec(&spec)?,
        });
        let request = self.request(UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(FieldMask {
                paths: vec!["spec".to_owned()],
            }),
        })?;
        let mut client = ContainersClient::new(self.channel.clone());
        self.call("update container", PATIENCE, client.update(request))?;
        Ok(())
    }

    /// Creates the container's task; answers its pid.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn create(&self, id: &str, streams: &Streams) -> Result<u32> {
        let container = self.container(id)?;
        let request = self.request(MountsRequest {
            snapshotter: container.snapshotter,
            key: container.snapshot_key,
        })?;
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let rootfs = self
            .call("mounts", PATIENCE, snapshots.mounts(request))?
            .into_inner()
            .mounts;
        let request = self.request(CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: streams.terminal,
            ..CreateTaskRequest::default()
        })?;
        let mut tasks = self.tasks();
        Ok(self
            .call("create", PATIENCE * 2, tasks.create(request))?
            .into_inner()
            .pid)
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Starts the task; answers its pid.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn start(&self, id: &str) -> Result<u32> {
        let request = self.request(StartRequest {
            container_id: id.to_owned(),
            ..StartRequest::default()
        })?;
        Ok(self
            .call("start", PATIENCE, self.tasks().start(request))?
            .into_inner()
            .pid)
    }

    /// Waits until the task has ended; answers its exit code.
    ///
    /// # Errors
    /// containerd's, or that it did not end within `patience`.
    pub fn wait_for(&self, id: &str, patience: Duration) -> Result<u32> {
        let request = self.request(WaitRequest {
            container_id: id.to_owned(),
            ..WaitRequest::default()
        })?;
        Ok(self
            .call("wait", patience, self.tasks().wait(request))?
            .into_inner()
            .exit_status)
    }

    /// [`Self::wait_for`] with the usual patience.
    ///
    /// # Errors
    /// As there.
    pub fn wait(&self, id: &str) -> Result<u32> {
        self.wait_for(id, PATIENCE)
    }

    /// Sends a signal to the task's first process, or to all.
    ///
    /// # Errors
    /// containerd's.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let request = self.request(KillRequest {
            container_id: id.to_owned(),
            signal: u32::try_from(signal)?,
            all,
            ..KillRequest::default()
        })?;
        self.call("kill", PATIENCE, self.tasks().kill(request))?;
        Ok(())
    }

    /// Says that no more standard input will come.
    ///
    /// # Errors
    /// containerd's.
    pub fn close_stdin(&self, id: &str) -> Result<()> {
        let request = self.request(CloseIoRequest {
            container_id: id.to_owned(),
            stdin: true,
            ..CloseIoRequest::default()
        })?;
        self.call("close io", PATIENCE, self.tasks().close_io(request))?;
        Ok(())
    }

    /// Deletes the task; answers its exit code.
    ///
    /// # Errors
    /// containerd's.
    pub fn delete(&self, id: &str) -> Result<u32> {
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        })?;
        Ok(self
            .call("delete", PATIENCE, self.tasks().delete(request))?
            .into_inner()
            .exit_status)
    }

    /// The state of the task: its status, pid and exit code.
    ///
    /// # Errors
    /// containerd's.
    pub fn state(&self, id: &str) -> Result<(TaskStatus, u32, u32)> {
        let request = self.request(GetRequest {
            container_id: id.to_owned(),
            ..GetRequest::default()
        })?;
        let process = self
            .call("state", PATIENCE, self.tasks().get(request))?
            .into_inner()
            .process
            .context("state: the answer has no process")?;
        Ok((process.status(), process.pid, process.exit_status))
    }

    /// The task's processes.
    ///
    /// # Errors
    /// containerd's.
    pub fn pids(&self, id: &str) -> Result<Vec<u32>> {
        let request = self.request(ListPidsRequest {
            container_id: id.to_owned(),
        })?;
        let found = self
            .call("pids", PATIENCE, self.tasks().list_pids(request))?
            .into_inner();
        Ok(found.processes.iter().map(|process| process.pid).collect())
    }
}
