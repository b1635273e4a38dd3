//! The calls to containerd that a trial takes, one after the other.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    ApplyRequest, Container, CreateContainerRequest, CreateImageRequest, CreateTaskRequest,
    DeleteContainerRequest, DeleteContentRequest, DeleteImageRequest, DeleteNamespaceRequest,
    DeleteTaskRequest, Image, KillRequest, ListContainersRequest, ListContentRequest,
    ListImagesRequest, StartRequest, WaitRequest, WriteAction, WriteContentRequest,
};
use containerd_client::tonic::metadata::AsciiMetadataValue;
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};
use containerd_client::types::{Descriptor, Mount};
use tokio::runtime::{Builder, Runtime};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a Create may take, which compiles the program if need be.
const CREATE: Duration = Duration::from_secs(180);
/// Keeps things from containerd's garbage collection until they are removed.
const ROOT: &str = "containerd.io/gc.root";

/// What a call was answered with if not with success, in one line.
type Answer<T> = Result<T, String>;

/// A connection to one namespace.
pub struct Client {
    // Declared first, dropped first: its tasks end while their runtime lives.
    channel: Channel,
    runtime: Runtime,
    namespace: Option<AsciiMetadataValue>,
}

fn labels() -> HashMap<String, String> {
    HashMap::from([(ROOT.to_owned(), "wisp-doctor".to_owned())])
}

impl Client {
    /// Connects to containerd; no namespace is enough to ask for its version.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(socket: &Path, namespace: &str) -> Answer<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let connecting = containerd_client::connect(socket);
        let channel = runtime
            .block_on(async { tokio::time::timeout(PATIENCE, connecting).await })
            .map_err(|_| "no answer".to_owned())?
            .map_err(|error| crate::text(&error.into()))?;
        Ok(Self {
            channel,
            runtime,
            namespace: AsciiMetadataValue::try_from(namespace)
                .ok()
                .filter(|name| !name.is_empty()),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(namespace) = &self.namespace {
            request
                .metadata_mut()
                .insert("containerd-namespace", namespace.clone());
        }
        request
    }

    fn within<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.runtime
            .block_on(async { tokio::time::timeout(patience, call).await })
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
    }

    fn call<T>(&self, what: &str, call: impl Future<Output = Result<T, Status>>) -> Answer<T> {
        self.within(PATIENCE, call)
            .map_err(|status| format!("{what}: {}", status.message()))
    }

    /// A call that removes something; that it is not there is fine.
    fn remove<T>(&self, what: &str, call: impl Future<Output = Result<T, Status>>) -> Answer<()> {
        match self.within(PATIENCE, call) {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(format!("{what}: {}", status.message())),
        }
    }

    /// containerd's version.
    ///
    /// # Errors
    /// When it does not say.
    pub fn version(&self) -> Answer<String> {
        let mut client = VersionClient::new(self.channel.clone());
        let answer = self.call("version", client.version(self.request(())))?;
        Ok(answer.into_inner().version)
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// containerd's.
    pub fn write(&self, digest: &str, data: &[u8]) -> Answer<()> {
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: format!("wisp-doctor-{digest}"),
            total: i64::try_from(data.len()).unwrap_or(i64::MAX),
            expected: digest.to_owned(),
            offset: 0,
            data: data.to_vec(),
            labels: labels(),
        };
        let mut client = ContentClient::new(self.channel.clone());
        let result = self.within(PATIENCE, async {
            let stream = tokio_stream::once(message);
            let mut answers = client.write(self.request(stream)).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(())
        });
        match result {
            // Namespaces share content, and it is content by its digest.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            result => result.map_err(|status| format!("store {digest}: {}", status.message())),
        }
    }

    /// Records an image.
    ///
    /// # Errors
    /// containerd's.
    pub fn create_image(&self, name: &str, target: Descriptor) -> Answer<()> {
        let request = self.request(CreateImageRequest {
            image: Some(Image {
                name: name.to_owned(),
                target: Some(target),
                ..Image::default()
            }),
            ..CreateImageRequest::default()
        });
        let mut client = ImagesClient::new(self.channel.clone());
        self.call("create the image", client.create(request))
            .map(drop)
    }

    /// Makes a file system on top of another one, or of none.
    ///
    /// # Errors
    /// containerd's.
    pub fn prepare(&self, snapshotter: &str, key: &str, parent: &str) -> Answer<Vec<Mount>> {
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: labels(),
        });
        let mut client = SnapshotsClient::new(self.channel.clone());
        self.call("prepare a snapshot", client.prepare(request))
            .map(|answer| answer.into_inner().mounts)
    }

    /// Unpacks a layer there.
    ///
    /// # Errors
    /// containerd's.
    pub fn unpack(&self, layer: Descriptor, mounts: Vec<Mount>) -> Answer<()> {
        let request = self.request(ApplyRequest {
            diff: Some(layer),
            mounts,
            ..ApplyRequest::default()
        });
        let mut client = DiffClient::new(self.channel.clone());
        self.call("unpack the layer", client.apply(request))
            .map(drop)
    }

    /// Lets others be made on top of a file system.
    ///
    /// # Errors
    /// containerd's.
    pub fn commit(&self, snapshotter: &str, key: &str, name: &str) -> Answer<()> {
        let request = self.request(CommitSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            name: name.to_owned(),
            labels: labels(),
        });
        let mut client = SnapshotsClient::new(self.channel.clone());
        self.call("commit the snapshot", client.commit(request))
            .map(drop)
    }

    /// Records a container.
    ///
    /// # Errors
    /// containerd's.
    pub fn create_container(&self, container: Container) -> Answer<()> {
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        });
        let mut client = ContainersClient::new(self.channel.clone());
        self.call("create the container", client.create(request))
            .map(drop)
    }

    /// Has a container's task made.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn create_task(&self, request: CreateTaskRequest) -> Answer<()> {
        let mut client = TasksClient::new(self.channel.clone());
        self.within(CREATE, client.create(self.request(request)))
            .map(drop)
            .map_err(|status| format!("create the task: {}", status.message()))
    }

    /// Lets it run.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn start(&self, id: &str) -> Answer<()> {
        let request = self.request(StartRequest {
            container_id: id.to_owned(),
            ..StartRequest::default()
        });
        let mut client = TasksClient::new(self.channel.clone());
        self.call("start the task", client.start(request)).map(drop)
    }

    /// Waits for its end; answers its exit code.
    ///
    /// # Errors
    /// containerd's, or that it did not end.
    pub fn wait(&self, id: &str) -> Answer<u32> {
        let request = self.request(WaitRequest {
            container_id: id.to_owned(),
            ..WaitRequest::default()
        });
        let mut client = TasksClient::new(self.channel.clone());
        self.call("wait for the task", client.wait(request))
            .map(|answer| answer.into_inner().exit_status)
    }

    /// Deletes it.
    ///
    /// # Errors
    /// containerd's.
    pub fn delete_task(&self, id: &str) -> Answer<()> {
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        });
        let mut client = TasksClient::new(self.channel.clone());
        self.remove("delete the task", client.delete(request))
    }

    /// Removes all that the namespace has, running or not, and itself.
    ///
    /// # Errors
    /// The first thing that could not be removed; the others are.
    pub fn clear(&self, namespace: &str, snapshotter: &str) -> Answer<()> {
        let mut first = Ok(());
        let mut note = |result: Answer<()>| {
            if first.is_ok() {
                first = result;
            }
        };
        note(self.clear_containers());
        note(self.clear_snapshots(snapshotter));
        note(self.clear_content());
        // Last, as it has containerd remove from its disk what nobody refers to.
        note(self.clear_images());
        let request = self.request(DeleteNamespaceRequest {
            name: namespace.to_owned(),
        });
        let mut client = NamespacesClient::new(self.channel.clone());
        note(self.remove("delete the namespace", client.delete(request)));
        first
    }

    fn clear_containers(&self) -> Answer<()> {
        let request = self.request(ListContainersRequest::default());
        let mut containers = ContainersClient::new(self.channel.clone());
        let all = self.call("list containers", containers.list(request))?;
        for container in all.into_inner().containers {
            let id = container.id;
            let request = self.request(KillRequest {
                container_id: id.clone(),
                signal: 9,
                all: true,
                ..KillRequest::default()
            });
            let mut tasks = TasksClient::new(self.channel.clone());
            // One that has ended is as good.
            if self.call("kill", tasks.kill(request)).is_ok() {
                let _ = self.wait(&id);
            }
            self.delete_task(&id)?;
            let request = self.request(DeleteContainerRequest { id });
            self.remove("delete the container", containers.delete(request))?;
        }
        Ok(())
    }

    fn clear_images(&self) -> Answer<()> {
        let mut client = ImagesClient::new(self.channel.clone());
        let request = self.request(ListImagesRequest::default());
        let all = self.call("list images", client.list(request))?;
        for image in all.into_inner().images {
            let request = self.request(DeleteImageRequest {
                name: image.name,
                sync: true,
                ..DeleteImageRequest::default()
            });
            self.remove("delete the image", client.delete(request))?;
        }
        Ok(())
    }

    fn clear_snapshots(&self, snapshotter: &str) -> Answer<()> {
        let mut client = SnapshotsClient::new(self.channel.clone());
        loop {
            let request = self.request(ListSnapshotsRequest {
                snapshotter: snapshotter.to_owned(),
                ..ListSnapshotsRequest::default()
            });
            let all = self.call("list snapshots", async {
                let mut stream = client.list(request).await?.into_inner();
                let mut all = Vec::new();
                while let Some(some) = stream.message().await? {
                    all.extend(some.info);
                }
                Ok(all)
            })?;
            // One that others are on top of goes after them.
            let leaf = all
                .iter()
                .find(|info| !all.iter().any(|other| other.parent == info.name));
            let Some(leaf) = leaf else {
                return Ok(());
            };
            let request = self.request(RemoveSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: leaf.name.clone(),
            });
            self.call("remove the snapshot", client.remove(request))?;
        }
    }

    fn clear_content(&self) -> Answer<()> {
        let mut client = ContentClient::new(self.channel.clone());
        let request = self.request(ListContentRequest::default());
        let all = self.call("list content", async {
            let mut stream = client.list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(some) = stream.message().await? {
                all.extend(some.info);
            }
            Ok(all)
        })?;
        for info in all {
            let request = self.request(DeleteContentRequest {
                digest: info.digest,
            });
            self.remove("delete content", client.delete(request))?;
        }
        Ok(())
    }
}
