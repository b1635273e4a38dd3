//! A program run through containerd from its image to its end, as `ctr` would.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use containerd_client::services::v1::container::Runtime as ContainerRuntime;
use containerd_client::services::v1::{Container, CreateTaskRequest};
use containerd_client::types::Descriptor;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use prost::Message;
use prost_types::Any;
use serde_json::{Value, json};
use wisp_node::settings::Runtime;
use wisp_node::{Finding, RUNTIME_TYPE};

use super::client::Client;
use super::hello;

/// The namespace that is the trial's alone, and what its things are called.
const NAMESPACE: &str = "wisp-doctor";

/// How long another one is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether that one has ended.
const PACE: Duration = Duration::from_millis(100);

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

    /// Removes what one that was killed has left.
    ///
    /// # Errors
    /// containerd's words.
    pub fn clear(&self) -> Result<(), String> {
        let _only = only(self.socket)?;
        Client::connect(self.socket, NAMESPACE)?.clear(NAMESPACE, self.snapshotter)
    }

    fn run(&self) -> Result<(), String> {
        // Two at once would clear each other's things away.
        let _only = only(self.socket)?;
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

/// Waits to be the only one with the containerd that listens at `socket`. The
/// kernel lets go when this process ends. Whichever network namespace that is in:
/// of the socket's directory there is one.
fn only(socket: &Path) -> Result<Flock<File>, String> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    let mut file = File::open(dir).map_err(|error| format!("open {}: {error}", dir.display()))?;
    let end = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < end => file = again,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err("another `wisp doctor` or `wisp node` does not end".to_owned());
            }
            Err((_, errno)) => return Err(format!("lock {}: {errno}", dir.display())),
        }
        std::thread::sleep(PACE);
    }
}
