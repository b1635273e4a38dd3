//! Pods: their sandboxes.

use super::api::{
    DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatus,
    PodSandboxStatusRequest, PortForwardRequest, PortMapping, RemovePodSandboxRequest,
    RunPodSandboxRequest, StopPodSandboxRequest,
};
use super::container::Describe;
use super::test::{Known, Test};
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;

/// A pod that is to run.
#[derive(Debug)]
#[must_use]
pub struct DescribePod<'t, 'n> {
    test: &'t Test<'n>,
    config: PodSandboxConfig,
    runtime: String,
}

impl<'t, 'n> DescribePod<'t, 'n> {
    pub(super) fn new(test: &'t Test<'n>, name: &str) -> Self {
        // As kubelet has it: a shared network and IPC, and processes apart.
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption {
                pid: NamespaceMode::Container.into(),
                ..NamespaceOption::default()
            }),
            ..LinuxSandboxSecurityContext::default()
        };
        let uid = format!("{}-{name}", test.name());
        Self {
            test,
            config: PodSandboxConfig {
                metadata: Some(PodSandboxMetadata {
                    name: name.to_owned(),
                    uid: uid.clone(),
                    namespace: test.name().to_owned(),
                    attempt: 0,
                }),
                hostname: name.to_owned(),
                log_directory: test.dir().join("logs").join(name).display().to_string(),
                labels: [
                    ("io.kubernetes.pod.name", name),
                    ("io.kubernetes.pod.namespace", test.name()),
                    ("io.kubernetes.pod.uid", &uid),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
                linux: Some(LinuxPodSandboxConfig {
                    cgroup_parent: format!("/{}", test.name()),
                    security_context: Some(security),
                    ..LinuxPodSandboxConfig::default()
                }),
                ..PodSandboxConfig::default()
            },
            runtime: "wisp".to_owned(),
        }
    }

    /// An annotation of the pod.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.config
            .annotations
            .insert(name.to_owned(), value.to_owned());
        self
    }

    /// Another runtime handler than `wisp`.
    pub fn runtime(mut self, name: &str) -> Self {
        self.runtime = name.to_owned();
        self
    }

    /// Its name servers and search domains.
    pub fn dns(mut self, server: &str, search: &str) -> Self {
        self.config.dns_config = Some(DnsConfig {
            servers: vec![server.to_owned()],
            searches: vec![search.to_owned()],
            options: vec!["ndots:5".to_owned(), "timeout:5".to_owned()],
        });
        self
    }

    /// A port of the host that leads to one of the pod.
    pub fn host_port(mut self, host: u16, container: u16) -> Self {
        self.config.port_mappings.push(PortMapping {
            host_port: host.into(),
            container_port: container.into(),
            ..PortMapping::default()
        });
        self
    }

    /// A sysctl of the pod's namespaces.
    pub fn sysctl(self, name: &str, value: &str) -> Self {
        self.linux(|linux| {
            linux.sysctls.insert(name.to_owned(), value.to_owned());
        })
    }

    /// The host's network, and so its name.
    pub fn host_network(mut self) -> Self {
        self.config.hostname.clear();
        self.namespaces(|namespaces| namespaces.network = NamespaceMode::Node.into())
    }

    /// One process namespace for all containers.
    pub fn shared_processes(self) -> Self {
        self.namespaces(|namespaces| namespaces.pid = NamespaceMode::Pod.into())
    }

    /// Changes its namespaces.
    pub fn namespaces(self, change: impl FnOnce(&mut NamespaceOption)) -> Self {
        self.linux(|linux| {
            let security = linux.security_context.get_or_insert_default();
            change(security.namespace_options.get_or_insert_default());
        })
    }

    /// Changes what is particular to Linux.
    pub fn linux(mut self, change: impl FnOnce(&mut LinuxPodSandboxConfig)) -> Self {
        change(self.config.linux.get_or_insert_default());
        self
    }

    /// Runs its sandbox, that is its network and pause.
    ///
    /// # Errors
    /// containerd's.
    pub fn run(self) -> Result<Pod<'t, 'n>> {
        let Self {
            test,
            config,
            runtime,
        } = self;
        std::fs::create_dir_all(&config.log_directory)?;
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: runtime,
        };
        let id = test
            .client()
            .call("RunPodSandbox", async |mut to| {
                to.run_pod_sandbox(request).await
            })?
            .pod_sandbox_id;
        let pod = Pod {
            test,
            id: id.clone(),
            config,
        };
        // Known at once, so that it is swept even if asking about it fails.
        let known = |address, namespace| Known {
            id: id.clone(),
            address,
            namespace,
            removed: false,
        };
        let described = pod.describe();
        let (address, namespace) = described.as_ref().ok().cloned().unwrap_or_default();
        test.know_pod(known(address, namespace));
        described?;
        Ok(pod)
    }
}

/// A pod's sandbox.
#[derive(Debug)]
pub struct Pod<'t, 'n> {
    test: &'t Test<'n>,
    /// Its id.
    pub id: String,
    config: PodSandboxConfig,
}

impl<'t, 'n> Pod<'t, 'n> {
    /// The pod with this id, as far as it can be known by that.
    pub(super) fn of(test: &'t Test<'n>, id: &str) -> Self {
        Self {
            test,
            id: id.to_owned(),
            config: PodSandboxConfig::default(),
        }
    }

    /// The test it is of.
    pub fn test(&self) -> &'t Test<'n> {
        self.test
    }

    pub(super) fn config(&self) -> &PodSandboxConfig {
        &self.config
    }

    /// Its status, and what containerd says when asked for more.
    ///
    /// # Errors
    /// containerd's.
    pub fn status(&self) -> Result<(PodSandboxStatus, Value)> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: true,
        };
        let answer = self
            .test
            .client()
            .call("PodSandboxStatus", async |mut to| {
                to.pod_sandbox_status(request).await
            })?;
        let info = answer.info.get("info").map_or("null", String::as_str);
        let info = serde_json::from_str(info).context("the status's info")?;
        Ok((answer.status.context("the answer has no status")?, info))
    }

    fn describe(&self) -> Result<(Option<String>, Option<PathBuf>)> {
        let (status, info) = self.status()?;
        let address = status
            .network
            .map(|network| network.ip)
            .filter(|ip| !ip.is_empty());
        let namespaces = &info["runtimeSpec"]["linux"]["namespaces"];
        let path = namespaces
            .as_array()
            .into_iter()
            .flatten()
            .find(|namespace| namespace["type"] == "network")
            .and_then(|namespace| namespace["path"].as_str())
            .map(PathBuf::from);
        Ok((address, path))
    }

    /// Its address.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> Result<String> {
        self.describe()?.0.context("the pod has no address")
    }

    /// The process id of its first container, pause.
    ///
    /// # Errors
    /// When containerd does not say.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.status()?.1["pid"].as_u64();
        Ok(u32::try_from(pid.context("the status has no pid")?)?)
    }

    /// Whether its sandbox is ready.
    ///
    /// # Errors
    /// containerd's.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.status()?.0.state() == PodSandboxState::SandboxReady)
    }

    /// A container of it, to be described further.
    pub fn container(&self, name: &str, image: &str) -> Describe<'_, 't, 'n> {
        Describe::new(self, name, image)
    }

    /// Where one of its ports can be reached.
    ///
    /// # Errors
    /// containerd's.
    pub fn forward_url(&self, port: u16) -> Result<String> {
        let request = PortForwardRequest {
            pod_sandbox_id: self.id.clone(),
            port: vec![port.into()],
        };
        let answer = self
            .test
            .client()
            .call("PortForward", async |mut to| to.port_forward(request).await)?;
        Ok(answer.url)
    }

    /// Stops it and all its containers.
    ///
    /// # Errors
    /// containerd's.
    pub fn stop(&self) -> Result<()> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.test
            .client()
            .call("StopPodSandbox", async |mut to| {
                to.stop_pod_sandbox(request).await
            })
            .map(drop)
    }

    /// Removes it and all its containers.
    ///
    /// # Errors
    /// containerd's.
    pub fn remove(&self) -> Result<()> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.test
            .client()
            .call("RemovePodSandbox", async |mut to| {
                to.remove_pod_sandbox(request).await
            })?;
        self.test.know_removed(&self.id);
        Ok(())
    }
}
