//! A program run through containerd from its image to its end, as `ctr` would.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Instant;

use containerd_client::services::v1::container::Runtime as ContainerRuntime;
use containerd_client::services::v1::{Container, CreateTaskRequest};
use containerd_client::types::Descriptor;
use prost::Message;
use prost_types::Any;
use serde_json::{Value, json};
use wisp_node::settings::Runtime;
use wisp_node::{Finding, RUNTIME_TYPE};

use super::client::Client;
use super::hello;

/// The namespace that is the trial's alone, and what its things are called.
const NAMESPACE: &str = "wisp-doctor";

/// What it takes.
pub struct Trial<'a> {
    /// containerd's gRPC socket.
    pub socket: &'a Path,
    /// The runtime that pods have, if they have it.
    pub runtime: Option<&'a Runtime>,
    /// What makes root file systems here.
    pub snapshotter: &'a str,
}

/// containerd's `runtimeoptions.v1.Options`.
#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
}

impl Trial<'_> {
    /// Runs it, and removes all of it whatever comes.
    pub fn check(&self) -> Finding {
        let begun = Instant::now();
        match self.run() {
            Ok(()) => Finding::ok(
                "hello",
                format!(
                    "a program was imported, run and removed through containerd in {} ms",
                    begun.elapsed().as_millis()
                ),
            ),
            Err(reason) => Finding::failed(
                "hello",
                reason,
                "lines with runtime=wisp in containerd's log say more: `journalctl -u \
                 containerd`; docs/guide.md, \"When something does not work\", explains them",
            ),
        }
    }

    fn run(&self) -> Result<(), String> {
        // Two at once would clear each other's things away. The kernel forgets
        // the name when this process ends.
        let mut hasher = DefaultHasher::new();
        self.socket.hash(&mut hasher);
        let name = format!("{NAMESPACE}-{:x}", hasher.finish());
        let _only = SocketAddr::from_abstract_name(name)
            .and_then(|name| UnixListener::bind_addr(&name))
            .map_err(|error| format!("another `wisp doctor` is running ({error})"))?;
        let client = Client::connect(self.socket, NAMESPACE)?;
        // What one that was killed has left.
        client.clear(NAMESPACE, self.snapshotter)?;
        let ran = self.hello(&client);
        let cleared = client
            .clear(NAMESPACE, self.snapshotter)
            .map_err(|error| format!("it ran, and cannot be removed: {error}"));
        ran.and(cleared)
    }

    fn hello(&self, client: &Client) -> Result<(), String> {
        let text = |error: anyhow::Error| crate::text(&error);
        let image = hello::image().map_err(text)?;
        for (digest, bytes) in &image.blobs {
            client.write(digest, bytes)?;
        }
        client.create_image(hello::IMAGE, descriptor(&image.target))?;
        let mut parent = String::new();
        for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let key = format!("{NAMESPACE}-{diff_id}");
            let mounts = client.prepare(self.snapshotter, &key, &parent)?;
            client.unpack(descriptor(layer), mounts)?;
            client.commit(self.snapshotter, &key, diff_id)?;
            parent.clone_from(diff_id);
        }
        let rootfs = client.prepare(self.snapshotter, NAMESPACE, &parent)?;
        client.create_container(self.container())?;

        let dir = tempfile::tempdir().map_err(|error| format!("a temporary directory: {error}"))?;
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        client.create_task(CreateTaskRequest {
            container_id: NAMESPACE.to_owned(),
            rootfs,
            stdout: format!("file://{}", out.display()),
            stderr: format!("file://{}", err.display()),
            runtime_path: self
                .runtime
                .map(|runtime| runtime.runtime_path.clone())
                .unwrap_or_default(),
            ..CreateTaskRequest::default()
        })?;
        client.start(NAMESPACE)?;
        let code = client.wait(NAMESPACE)?;
        client.delete_task(NAMESPACE)?;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (out, err) = (read(&out), read(&err));
        if code != 0 || out != hello::SAID {
            return Err(format!(
                "the program ended with {code} and printed {out:?} and {err:?}"
            ));
        }
        Ok(())
    }

    fn container(&self) -> Container {
        let options = self
            .runtime
            .map(|runtime| runtime.options.config_path.clone())
            .filter(|path| !path.is_empty())
            .map(|config_path| Any {
                type_url: "runtimeoptions.v1.Options".to_owned(),
                value: Options {
                    type_url: String::new(),
                    config_path,
                }
                .encode_to_vec(),
            });
        Container {
            id: NAMESPACE.to_owned(),
            image: hello::IMAGE.to_owned(),
            runtime: Some(ContainerRuntime {
                name: RUNTIME_TYPE.to_owned(),
                options,
            }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
                value: spec().to_string().into_bytes(),
            }),
            snapshotter: self.snapshotter.to_owned(),
            snapshot_key: NAMESPACE.to_owned(),
            ..Container::default()
        }
    }
}

/// As little as a container needs, in a cgroup that leaves no directory behind.
fn spec() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": [format!("/{}", hello::FILE)],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "linux": {
            "cgroupsPath": format!("/{NAMESPACE}-{}", std::process::id()),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "network" },
            ],
        },
    })
}

fn descriptor(value: &Value) -> Descriptor {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Descriptor {
        media_type: text("mediaType"),
        digest: text("digest"),
        size: value["size"].as_i64().unwrap_or_default(),
        ..Descriptor::default()
    }
}
