//! Create: from the request to a container that waits for Start.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim::protos::api::CreateTaskRequest;
use containerd_shim::protos::ttrpc::{self, Code};
use log::warn;
use tokio::sync::Notify;
use wisp_container::trace::Trace;
use wisp_container::{Bundle, ContainerError, CreateRequest, RootfsMount, Shares, launch};

use crate::orphans;

use super::error::{TaskError, status, unimplemented};
use super::options::config_path;
use super::service::Service;
use super::stdio::{Kept, Owner, Streams};
use super::task::{Parts, Task};

/// A Create under way.
#[derive(Debug, Default)]
pub struct Creation {
    /// Cuts it short.
    pub cancel: Notify,
    /// Told when it has ended, either way.
    pub ended: Notify,
}

impl Service {
    /// Creates the container that `request` describes.
    ///
    /// # Errors
    /// The reason; nothing is left of it.
    pub(super) async fn create_task(
        &self,
        request: CreateTaskRequest,
        creation: &Creation,
    ) -> Result<Arc<Task>, ttrpc::Error> {
        if !request.checkpoint.is_empty() {
            return Err(unimplemented("Create from a checkpoint"));
        }
        let trace = Trace::of(&request.id);
        trace.mark("daemon: Create called");
        let config = config_path(request.options.as_ref())
            .map_err(|error| status(Code::INVALID_ARGUMENT, format!("{error:#}")))?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let owner = Owner {
            namespace: &self.namespace,
            id: &request.id,
        };
        let (stdio, mut kept) = streams
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
            ledger: -1,
            traced: trace.is_on(),
        };
        trace.mark("daemon: streams opened");
        let bundle = Bundle::new(&create.bundle);
        // Whoever gives up may remove the bundle before this has come to its end.
        let spec = File::open(bundle.config()).ok();
        orphans::keep(&self.pod, &bundle, &create.id);
        let starting = self.reaper.starting();
        let made = async {
            let shares = Shares::new().map_err(|error| {
                ContainerError::Init(format!("memory to count its guests' in: {error}"))
            })?;
            let mut launch = launch(create.clone(), &shares, stdio).await?;
            let created = tokio::select! {
                created = launch.created() => match created {
                    Ok(created) => Some(created),
                    Err(error) => {
                        // Who gave no reason was killed; what it has started,
                        // hooks above all, would go on.
                        if !matches!(error, ContainerError::Refused(_)) {
                            launch.kill();
                        }
                        return Err(error.into());
                    }
                },
                () = creation.cancel.notified() => None,
            };
            match created {
                Some(created) => {
                    let connected = kept.connect(launch.terminal());
                    if let Err(error) = connected {
                        return Err(TaskError::Invalid(format!("{error:#}")));
                    }
                    Ok((launch, created, shares))
                }
                None => {
                    launch.kill();
                    Err(TaskError::NotFound(format!("container {}", create.id)))
                }
            }
        }
        .await;
        match made {
            Ok((launch, created, shares)) => {
                trace.mark("daemon: created");
                let ended = self.reaper.exit_of(created.pid);
                drop(starting);
                let parts = Parts {
                    id: create.id,
                    bundle,
                    created,
                    streams,
                    kept,
                    launch,
                    shares,
                };
                Ok(Task::new(parts, ended, self.publisher.clone()))
            }
            Err(error) => {
                drop(starting);
                self.undo(&create, spec, kept).await;
                Err(error.into())
            }
        }
    }

    /// Removes what the init role has made so far.
    async fn undo(&self, create: &CreateRequest, spec: Option<File>, kept: Kept) {
        // Processes that die slowly and hooks are not waited for by others.
        let (bundle, id) = (Bundle::new(&create.bundle), create.id.clone());
        let begun = bundle.own().exists() || !bundle.path().exists();
        let removed = tokio::task::spawn_blocking(move || match spec {
            Some(spec) => {
                let spec = format!("/proc/self/fd/{}", spec.as_raw_fd());
                bundle.abandon_orphan(&id, Path::new(&spec), begun)
            }
            None => bundle.abandon(&id),
        })
        .await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("container {}: {error}", create.id),
            Err(error) => warn!("container {}: {error}", create.id),
        }
        kept.close().await;
    }
}
