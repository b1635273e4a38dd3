//! Containers of pods.

use super::api::{
    AttachRequest, Capability, ContainerConfig, ContainerMetadata, ContainerState,
    ContainerStatsRequest, ContainerStatus, ContainerStatusRequest, CreateContainerRequest,
    ExecRequest, ExecSyncRequest, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, Mount, RemoveContainerRequest,
    SecurityProfile, StartContainerRequest, StopContainerRequest, UpdateContainerResourcesRequest,
};
use super::log::{self, Line, Stream};
use super::pod::Pod;
use crate::wait::{self, PATIENCE};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A container that is to run.
#[derive(Debug)]
#[must_use]
pub struct Describe<'p, 't, 'n> {
    pod: &'p Pod<'t, 'n>,
    config: ContainerConfig,
}

impl<'p, 't, 'n> Describe<'p, 't, 'n> {
    pub(super) fn new(pod: &'p Pod<'t, 'n>, name: &str, image: &str) -> Self {
        // Processes of a container share what the pod says; kubelet repeats it.
        let namespaces = pod
            .config()
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.as_ref())
            .and_then(|security| security.namespace_options.clone());
        let security = LinuxContainerSecurityContext {
            namespace_options: namespaces,
            ..LinuxContainerSecurityContext::default()
        };
        let mut labels = pod.config().labels.clone();
        labels.insert("io.kubernetes.container.name".to_owned(), name.to_owned());
        Self {
            pod,
            config: ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: name.to_owned(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: image.to_owned(),
                    ..ImageSpec::default()
                }),
                log_path: format!("{name}.log"),
                labels,
                linux: Some(LinuxContainerConfig {
                    security_context: Some(security),
                    ..LinuxContainerConfig::default()
                }),
                ..ContainerConfig::default()
            },
        }
    }

    /// What it runs in place of the image's entrypoint.
    pub fn command(mut self, command: &[&str]) -> Self {
        self.config.command = owned(command);
        self
    }

    /// Its arguments.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.config.args = owned(args);
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.config.envs.push(KeyValue {
            key: name.to_owned(),
            value: value.to_owned(),
        });
        self
    }

    /// Its working directory.
    pub fn working_dir(mut self, path: &str) -> Self {
        self.config.working_dir = path.to_owned();
        self
    }

    /// How often a container of this name has been there before.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.config.metadata.get_or_insert_default().attempt = attempt;
        self
    }

    /// A volume that it may write to.
    pub fn volume(self, source: &Path, target: &str) -> Self {
        self.mount(source, target, |_| {})
    }

    /// A volume that it may only read.
    pub fn read_only(self, source: &Path, target: &str) -> Self {
        self.mount(source, target, |mount| mount.readonly = true)
    }

    /// A volume.
    pub fn mount(mut self, source: &Path, target: &str, change: impl FnOnce(&mut Mount)) -> Self {
        let mut mount = Mount {
            host_path: source.display().to_string(),
            container_path: target.to_owned(),
            ..Mount::default()
        };
        change(&mut mount);
        self.config.mounts.push(mount);
        self
    }

    /// Its user and group.
    pub fn user(self, user: i64, group: i64) -> Self {
        self.security(|security| {
            security.run_as_user = Some(Int64Value { value: user });
            security.run_as_group = Some(Int64Value { value: group });
        })
    }

    /// The capabilities that it gets beside the usual ones, and those of the
    /// usual ones that it does not.
    pub fn capabilities(self, add: &[&str], drop: &[&str]) -> Self {
        self.security(|security| {
            security.capabilities = Some(Capability {
                add_capabilities: owned(add),
                drop_capabilities: owned(drop),
                ..Capability::default()
            });
        })
    }

    /// Its seccomp profile.
    pub fn seccomp(self, profile: SecurityProfile) -> Self {
        self.security(|security| security.seccomp = Some(profile))
    }

    /// Changes its security context.
    pub fn security(self, change: impl FnOnce(&mut LinuxContainerSecurityContext)) -> Self {
        self.config(|config| {
            let linux = config.linux.get_or_insert_default();
            change(linux.security_context.get_or_insert_default());
        })
    }

    /// Its limits.
    pub fn resources(self, resources: LinuxContainerResources) -> Self {
        self.config(|config| config.linux.get_or_insert_default().resources = Some(resources))
    }

    /// Changes anything.
    pub fn config(mut self, change: impl FnOnce(&mut ContainerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Creates it, without starting it.
    ///
    /// # Errors
    /// containerd's.
    pub fn create(self) -> Result<Container<'p, 't, 'n>> {
        let log = Path::new(&self.pod.config().log_directory).join(&self.config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.pod.id.clone(),
            config: Some(self.config),
            sandbox_config: Some(self.pod.config().clone()),
        };
        let id = self
            .pod
            .test()
            .client()
            .call("CreateContainer", async |mut to| {
                to.create_container(request).await
            })?
            .container_id;
        self.pod.test().know_container(&id);
        Ok(Container {
            pod: self.pod,
            id,
            log,
        })
    }

    /// Creates and starts it.
    ///
    /// # Errors
    /// containerd's.
    pub fn start(self) -> Result<Container<'p, 't, 'n>> {
        let container = self.create()?;
        container.start()?;
        Ok(container)
    }

    /// Runs it to its end; answers its standard output. Anything but success
    /// is an error.
    ///
    /// # Errors
    /// containerd's, or what it wrote to its log.
    pub fn succeeds(self) -> Result<String> {
        let container = self.start()?;
        let status = container.wait()?;
        let log = container.log()?;
        ensure!(
            status.exit_code == 0,
            "it exited {} ({}): {log:?}",
            status.exit_code,
            status.reason
        );
        Ok(text(&log, Stream::Stdout))
    }

    /// Runs it to its end and takes nothing but the failure of a guest, with
    /// exit code 1; answers its standard error.
    ///
    /// # Errors
    /// containerd's, or what else happened.
    pub fn fails(self) -> Result<String> {
        let container = self.start()?;
        let status = container.wait()?;
        let log = container.log()?;
        ensure!(
            status.exit_code == 1,
            "it exited {} ({}): {log:?}",
            status.exit_code,
            status.reason
        );
        Ok(text(&log, Stream::Stderr))
    }
}

/// A container.
#[derive(Debug)]
pub struct Container<'p, 't, 'n> {
    pod: &'p Pod<'t, 'n>,
    /// Its id.
    pub id: String,
    /// Its log's path.
    pub log: PathBuf,
}

impl Container<'_, '_, '_> {
    /// Starts it.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn start(&self) -> Result<()> {
        let request = StartContainerRequest {
            container_id: self.id.clone(),
        };
        self.pod
            .test()
            .client()
            .call("StartContainer", async |mut to| {
                to.start_container(request).await
            })
            .map(drop)
    }

    /// Its status, and what containerd says when asked for more.
    ///
    /// # Errors
    /// containerd's.
    pub fn status_and_info(&self) -> Result<(ContainerStatus, Value)> {
        let request = ContainerStatusRequest {
            container_id: self.id.clone(),
            verbose: true,
        };
        let answer = self
            .pod
            .test()
            .client()
            .call("ContainerStatus", async |mut to| {
                to.container_status(request).await
            })?;
        let info = answer.info.get("info").map_or("null", String::as_str);
        let info = serde_json::from_str(info).context("the status's info")?;
        Ok((answer.status.context("the answer has no status")?, info))
    }

    /// Its status.
    ///
    /// # Errors
    /// containerd's.
    pub fn status(&self) -> Result<ContainerStatus> {
        Ok(self.status_and_info()?.0)
    }

    /// Its first process.
    ///
    /// # Errors
    /// When containerd does not say.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.status_and_info()?.1["pid"].as_u64();
        Ok(u32::try_from(pid.context("the status has no pid")?)?)
    }

    /// Waits for its end, as kubelet does by asking; answers its last status.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&self) -> Result<ContainerStatus> {
        wait::until(PATIENCE, || match self.status() {
            Ok(status) if status.state() != ContainerState::ContainerExited => None,
            other => Some(other),
        })
        .with_context(|| format!("it does not end; its log: {:?}", self.log()))?
    }

    /// The lines of its log.
    ///
    /// # Errors
    /// When it cannot be read, or is not in the CRI's format.
    pub fn log(&self) -> Result<Vec<Line>> {
        let text = fs::read_to_string(&self.log)
            .with_context(|| format!("read {}", self.log.display()))?;
        log::parse(&text)
    }

    /// What it has written to one of its streams so far.
    ///
    /// # Errors
    /// As [`Self::log`].
    pub fn text(&self, stream: Stream) -> Result<String> {
        Ok(text(&self.log()?, stream))
    }

    /// Waits until it has written a line to its standard output.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn says(&self, line: &str) -> Result<()> {
        let said = wait::until(PATIENCE, || {
            let log = self.log().ok()?;
            log.iter().any(|have| have.text == line).then_some(())
        });
        said.with_context(|| format!("it did not say {line:?}: {:?}", self.log()))
    }

    /// Stops it: SIGTERM, and SIGKILL after `grace` seconds.
    ///
    /// # Errors
    /// containerd's.
    pub fn stop(&self, grace: i64) -> Result<()> {
        let request = StopContainerRequest {
            container_id: self.id.clone(),
            timeout: grace,
        };
        self.pod
            .test()
            .client()
            .call("StopContainer", async |mut to| {
                to.stop_container(request).await
            })
            .map(drop)
    }

    /// Removes it.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove(&self) -> Result<()> {
        let request = RemoveContainerRequest {
            container_id: self.id.clone(),
        };
        self.pod
            .test()
            .client()
            .call("RemoveContainer", async |mut to| {
                to.remove_container(request).await
            })
            .map(drop)
    }

    /// Runs a program in it, as probes do; answers exit code, stdout, stderr.
    ///
    /// # Errors
    /// containerd's.
    pub fn exec(&self, command: &[&str]) -> Result<(i32, String, String)> {
        self.exec_within(command, 0)
    }

    /// [`Self::exec`] that may take `timeout` seconds; 0 is no limit.
    ///
    /// # Errors
    /// containerd's.
    pub fn exec_within(&self, command: &[&str], timeout: i64) -> Result<(i32, String, String)> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: owned(command),
            timeout,
        };
        let answer = self
            .pod
            .test()
            .client()
            .call("ExecSync", async |mut to| to.exec_sync(request).await)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((answer.exit_code, text(answer.stdout), text(answer.stderr)))
    }

    /// Where its streams can be attached to: those that it was created with.
    ///
    /// # Errors
    /// containerd's.
    pub fn attach_url(&self) -> Result<String> {
        let (status, info) = self.status_and_info()?;
        let config = &info["config"];
        let tty = config["tty"].as_bool().unwrap_or_default();
        let request = AttachRequest {
            container_id: status.id,
            stdin: config["stdin"].as_bool().unwrap_or_default(),
            tty,
            stdout: true,
            // A terminal has one output.
            stderr: !tty,
        };
        let answer = self
            .pod
            .test()
            .client()
            .call("Attach", async |mut to| to.attach(request).await)?;
        Ok(answer.url)
    }

    /// Where a program that is to run in it can be talked to, at a terminal or
    /// not.
    ///
    /// # Errors
    /// containerd's.
    pub fn exec_url(&self, command: &[&str], tty: bool) -> Result<String> {
        let request = ExecRequest {
            container_id: self.id.clone(),
            cmd: owned(command),
            tty,
            stdin: true,
            stdout: true,
            stderr: !tty,
        };
        let answer = self
            .pod
            .test()
            .client()
            .call("Exec", async |mut to| to.exec(request).await)?;
        Ok(answer.url)
    }

    /// Changes its limits while it runs.
    ///
    /// # Errors
    /// containerd's.
    pub fn update(&self, resources: LinuxContainerResources) -> Result<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: self.id.clone(),
            linux: Some(resources),
            ..UpdateContainerResourcesRequest::default()
        };
        self.pod
            .test()
            .client()
            .call("UpdateContainerResources", async |mut to| {
                to.update_container_resources(request).await
            })
            .map(drop)
    }

    /// What it uses.
    ///
    /// # Errors
    /// containerd's.
    pub fn stats(&self) -> Result<super::api::ContainerStats> {
        let request = ContainerStatsRequest {
            container_id: self.id.clone(),
        };
        self.pod
            .test()
            .client()
            .call("ContainerStats", async |mut to| {
                to.container_stats(request).await
            })?
            .stats
            .context("the answer has no stats")
    }

    /// Makes containerd open its log anew.
    ///
    /// # Errors
    /// containerd's.
    pub fn reopen_log(&self) -> Result<()> {
        let request = super::api::ReopenContainerLogRequest {
            container_id: self.id.clone(),
        };
        self.pod
            .test()
            .client()
            .call("ReopenContainerLog", async |mut to| {
                to.reopen_container_log(request).await
            })
            .map(drop)
    }
}

fn text(log: &[Line], stream: Stream) -> String {
    log.iter()
        .filter(|line| line.stream == stream)
        .map(|line| format!("{}\n", line.text))
        .collect()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
