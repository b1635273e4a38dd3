//! containerd's API, call by call, so that each can be timed alone.

use crate::contestants::{self, Contestant, Form, Job};
use crate::node::Node;
use anyhow::{Context, Result, anyhow};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteTaskRequest, GetContainerRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::tonic::metadata::MetadataValue;
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Response, Status};
use containerd_client::types::Mount;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A connection in the benchmarks' namespace.
#[derive(Clone, Debug)]
pub struct Api {
    channel: Channel,
    namespace: MetadataValue<containerd_client::tonic::metadata::Ascii>,
    count: Arc<AtomicUsize>,
}

/// A container as `ctr` describes it, of which any number can be made.
#[derive(Clone, Debug)]
pub struct Template {
    container: Container,
    spec: Value,
    parent: String,
}

/// A container with its snapshot and without a task: what a runtime is given.
#[derive(Debug)]
pub struct Prepared {
    pub id: String,
    snapshotter: String,
    rootfs: Vec<Mount>,
}

impl Api {
    /// Connects.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn connect(node: &Node) -> Result<Self> {
        Ok(Self {
            channel: containerd_client::connect(node.socket()).await?,
            namespace: node.namespace().parse()?,
            count: Arc::default(),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        request
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    fn new_id(&self) -> String {
        format!("b{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Has `ctr` describe a container of a program's image, made of the name and
    /// the form.
    ///
    /// # Errors
    /// What `ctr` or the API said.
    pub async fn template(
        &self,
        node: &Node,
        contestant: &Contestant,
        program: &str,
        arguments: &[&str],
    ) -> Result<Template> {
        self.template_with(node, contestant, program, &[], arguments)
            .await
    }

    /// [`Self::template`] with further flags for `ctr`.
    ///
    /// # Errors
    /// As there.
    pub async fn template_with(
        &self,
        node: &Node,
        contestant: &Contestant,
        program: &str,
        flags: &[&str],
        arguments: &[&str],
    ) -> Result<Template> {
        let id = self.new_id();
        // `ctr container create` takes images of this platform only: one of
        // layers is described by the same program's image with a file.
        let form = match contestant.form {
            Form::WasmLayer => Form::WasmFile,
            form => form,
        };
        let image = &contestants::image(program, form);
        let mut create = vec!["container", "create", "--runtime", &contestant.runtime];
        create.extend(flags);
        create.extend(["--", image, &id]);
        create.extend(arguments);
        node.ctr_ok(&create)?;
        let request = self.request(GetContainerRequest { id: id.clone() });
        let mut container = said("get container", self.containers().get(request).await)?
            .container
            .context("get container: the answer has none")?;
        let request = self.request(StatSnapshotRequest {
            snapshotter: container.snapshotter.clone(),
            key: container.snapshot_key.clone(),
        });
        let mut parent = said("stat snapshot", self.snapshots().stat(request).await)?
            .info
            .context("stat snapshot: the answer has none")?
            .parent;
        let spec = container.spec.as_ref().context("a container has a spec")?;
        let mut spec: Value = serde_json::from_slice(&spec.value)?;
        // Older releases of crun know no other version; nothing newer is in it.
        spec["ociVersion"] = "1.0.2".into();
        container.runtime = Some(contestant.containerd_runtime());
        if contestant.form == Form::WasmLayer {
            container.image = contestants::image(program, Form::WasmLayer);
            // Its root file system is empty.
            parent.clear();
        }
        node.ctr_ok(&["container", "rm", &id])?;
        Ok(Template {
            container,
            spec,
            parent,
        })
    }

    /// [`Self::template`] for a job.
    ///
    /// # Errors
    /// As there.
    pub async fn job(&self, node: &Node, contestant: &Contestant, job: Job) -> Result<Template> {
        let program = contestant.program(job);
        self.template(node, contestant, program, contestant.arguments(job))
            .await
    }

    /// Makes the snapshot and the record of a new container.
    ///
    /// # Errors
    /// containerd's.
    pub async fn prepare(&self, template: &Template) -> Result<Prepared> {
        let id = self.new_id();
        let snapshotter = template.container.snapshotter.clone();
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: id.clone(),
            parent: template.parent.clone(),
            // Nothing refers to it yet, and containerd collects what nothing refers to.
            labels: HashMap::from([("containerd.io/gc.root".to_owned(), "bench".to_owned())]),
        });
        let rootfs = said("prepare snapshot", self.snapshots().prepare(request).await)?.mounts;
        let mut container = template.container.clone();
        container.id.clone_from(&id);
        container.snapshot_key.clone_from(&id);
        let mut spec = template.spec.clone();
        spec["linux"]["cgroupsPath"] =
            format!("/{}/{id}", self.namespace.to_str().unwrap_or_default()).into();
        if let Some(any) = container.spec.as_mut() {
            any.value = serde_json::to_vec(&spec)?;
        }
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        });
        said("create container", self.containers().create(request).await)?;
        Ok(Prepared {
            id,
            snapshotter,
            rootfs,
        })
    }

    /// Creates the task. Streams are paths of FIFOs, or empty.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub async fn create(&self, prepared: &Prepared, stdout: &str, stderr: &str) -> Result<()> {
        let request = self.request(CreateTaskRequest {
            container_id: prepared.id.clone(),
            rootfs: prepared.rootfs.clone(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            ..CreateTaskRequest::default()
        });
        said("create", self.tasks().create(request).await)?;
        Ok(())
    }

    /// Starts the task; answers its pid, which not every shim says before.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub async fn start(&self, id: &str) -> Result<u32> {
        let request = self.request(StartRequest {
            container_id: id.to_owned(),
            ..StartRequest::default()
        });
        Ok(said("start", self.tasks().start(request).await)?.pid)
    }

    /// Asks for the task's state: the least that a call through containerd and
    /// its shim can do.
    ///
    /// # Errors
    /// containerd's.
    pub async fn state(&self, id: &str) -> Result<()> {
        let request = self.request(GetRequest {
            container_id: id.to_owned(),
            ..GetRequest::default()
        });
        said("state", self.tasks().get(request).await)?;
        Ok(())
    }

    /// Waits for the task's end; answers its exit code.
    ///
    /// # Errors
    /// containerd's.
    pub async fn wait(&self, id: &str) -> Result<u32> {
        let request = self.request(WaitRequest {
            container_id: id.to_owned(),
            ..WaitRequest::default()
        });
        Ok(said("wait", self.tasks().wait(request).await)?.exit_status)
    }

    /// Kills the task.
    ///
    /// # Errors
    /// containerd's.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let request = self.request(KillRequest {
            container_id: id.to_owned(),
            signal: 9,
            ..KillRequest::default()
        });
        said("kill", self.tasks().kill(request).await)?;
        Ok(())
    }

    /// Deletes the task.
    ///
    /// # Errors
    /// containerd's.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        });
        said("delete", self.tasks().delete(request).await)?;
        Ok(())
    }

    /// Removes the container's record and snapshot, after its task if a failure
    /// has left one.
    ///
    /// # Errors
    /// containerd's.
    pub async fn remove(&self, prepared: &Prepared) -> Result<()> {
        let request = self.request(DeleteContainerRequest {
            id: prepared.id.clone(),
        });
        said("delete container", self.containers().delete(request).await)?;
        let request = self.request(RemoveSnapshotRequest {
            snapshotter: prepared.snapshotter.clone(),
            key: prepared.id.clone(),
        });
        said("remove snapshot", self.snapshots().remove(request).await)?;
        Ok(())
    }

    /// Removes all of a container of which something has failed.
    pub async fn clear(&self, prepared: &Prepared) {
        if self.kill(&prepared.id).await.is_ok() {
            let _ = self.wait(&prepared.id).await;
        }
        let _ = self.delete(&prepared.id).await;
        let _ = self.remove(prepared).await;
    }
}

fn said<T>(what: &str, answer: Result<Response<T>, Status>) -> Result<T> {
    answer
        .map(Response::into_inner)
        .map_err(|status| anyhow!("{what}: {:?}: {}", status.code(), status.message()))
}
