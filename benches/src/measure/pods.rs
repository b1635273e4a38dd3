//! Pods through the CRI: how long they take, and what they weigh.
//!
//! They use the host's network: making one for a pod is the work of CNI plugins,
//! and the same for all.

use crate::bench::{Bench, progress, turned};
use crate::contestants::{Contestant, Form, Job, image};
use crate::images::Images;
use crate::measure::memory::{Memory, SETTLE};
use crate::node::Node;
use crate::results::{Results, Unit};
use crate::task::milliseconds;
use anyhow::{Context, Result, anyhow};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Response, Status};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopPodSandboxRequest,
};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use wisp_tests::{configuration, processes, wait};

/// RunPodSandbox, CreateContainer and StartContainer.
pub const START: &str = "pod-start";
/// StopPodSandbox and RemovePodSandbox of a pod with a running container.
pub const STOP: &str = "pod-stop";

/// Of `count` idle pods: the PSS of all processes, by pod.
pub fn pss(count: usize) -> String {
    format!("pod-{count}-pss")
}

/// Of `count` idle pods: the private memory of all processes, by pod.
pub fn private(count: usize) -> String {
    format!("pod-{count}-private")
}

/// How long images may take to be known to the CRI.
const KNOWN: Duration = Duration::from_secs(10);

pub fn measure(
    bench: &Bench<'_>,
    guests: &Path,
    binaries: &Path,
    results: &mut Results,
) -> Result<()> {
    let version = bench.node.version();
    // Of the forms of an image, a node's own CRI takes those of its platform.
    let contestants: Vec<&Contestant> = bench
        .contestants
        .iter()
        .filter(|contestant| contestant.form != Form::WasmLayer)
        .collect();
    let node = Node::start_with(version, Some("k8s.io"), |dir| config(dir, &contestants))?;
    let images = Images::new(&node, binaries);
    images.native(&guests.join("start"))?;
    images.pause(&guests.join("start"))?;
    images.wasm("start", &guests.join("start.wasm"), Form::WasmFile)?;
    let cri = bench.runtime.block_on(Cri::connect(&node))?;

    let mut able = Vec::new();
    for contestant in contestants {
        let mut last = None;
        let found = wait::until(KNOWN, || {
            let tried = bench.runtime.block_on(cri.once(contestant));
            tried.map_err(|error| last = Some(error)).ok()
        });
        match (found, last) {
            (Some(_), _) => able.push(contestant),
            (None, error) => {
                let error = error.unwrap_or_else(|| anyhow!("no answer"));
                println!("    {} cannot: {error:#}", contestant.name);
                results.failed(START, Unit::Milliseconds, contestant.name);
            }
        }
    }
    for round in 0..bench.plan.pods {
        for contestant in turned(&able, round) {
            match bench.runtime.block_on(cri.once(contestant)) {
                Ok((start, stop)) => {
                    results.add(START, Unit::Milliseconds, contestant.name, start);
                    results.add(STOP, Unit::Milliseconds, contestant.name, stop);
                }
                Err(error) => {
                    println!("    {}: {error:#}", contestant.name);
                    results.failed(START, Unit::Milliseconds, contestant.name);
                }
            }
        }
        progress("pods", round + 1, bench.plan.pods);
    }
    for count in &bench.plan.idle_pods {
        for contestant in &able {
            weigh(bench, &cri, contestant, *count, results)?;
        }
        println!("    {count} idle pods");
    }
    Ok(())
}

fn weigh(
    bench: &Bench<'_>,
    cri: &Cri<'_>,
    contestant: &Contestant,
    count: usize,
    results: &mut Results,
) -> Result<()> {
    let mut pods = Vec::new();
    let started: Result<()> = (0..count).try_for_each(|_| {
        pods.push(bench.runtime.block_on(cri.start(contestant))?);
        Ok(())
    });
    let weight = started.map(|()| {
        sleep(SETTLE);
        processes::concerning(&cri.node.name())
            .iter()
            .filter_map(|process| Memory::of(process.pid))
            .fold((0.0, 0.0), |(pss, private), memory| {
                (pss + memory.pss, private + memory.private)
            })
    });
    for pod in &pods {
        bench.runtime.block_on(cri.stop(pod))?;
    }
    match weight {
        Ok((all_pss, all_private)) => {
            let by = count as f64;
            let name = contestant.name;
            results.add(&pss(count), Unit::Mebibytes, name, all_pss / by);
            results.add(&private(count), Unit::Mebibytes, name, all_private / by);
        }
        Err(error) => {
            println!("    {count} pods, {}: {error:#}", contestant.name);
            results.failed(&pss(count), Unit::Mebibytes, contestant.name);
        }
    }
    Ok(())
}

struct Cri<'n> {
    node: &'n Node,
    client: RuntimeServiceClient<Channel>,
}

impl<'n> Cri<'n> {
    async fn connect(node: &'n Node) -> Result<Self> {
        let channel = containerd_client::connect(node.socket()).await?;
        Ok(Self {
            node,
            client: RuntimeServiceClient::new(channel),
        })
    }

    /// A pod from its beginning to its end: milliseconds of start and stop.
    async fn once(&self, contestant: &Contestant) -> Result<(f64, f64)> {
        let begin = Instant::now();
        let pod = self.start(contestant).await?;
        let started = Instant::now();
        self.stop(&pod).await?;
        Ok((
            milliseconds(started - begin),
            milliseconds(started.elapsed()),
        ))
    }

    /// Starts a pod with one idle container; answers its id. A failed one is
    /// removed.
    async fn start(&self, contestant: &Contestant) -> Result<String> {
        let mut client = self.client.clone();
        let config = self.pod(contestant);
        let sandbox = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: contestant.name.to_owned(),
        };
        let pod = said("RunPodSandbox", client.run_pod_sandbox(sandbox).await)?.pod_sandbox_id;
        let started = async {
            let create = CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(container(contestant)),
                sandbox_config: Some(config),
            };
            let container = said("CreateContainer", client.create_container(create).await)?;
            let start = StartContainerRequest {
                container_id: container.container_id,
            };
            said("StartContainer", client.start_container(start).await)
        };
        match started.await {
            Ok(_) => Ok(pod),
            Err(error) => {
                let _ = self.stop(&pod).await;
                Err(error)
            }
        }
    }

    async fn stop(&self, pod: &str) -> Result<()> {
        let mut client = self.client.clone();
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        said("StopPodSandbox", client.stop_pod_sandbox(stop).await)?;
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: pod.to_owned(),
        };
        said("RemovePodSandbox", client.remove_pod_sandbox(remove).await)?;
        Ok(())
    }

    /// A pod that nobody else has.
    fn pod(&self, contestant: &Contestant) -> PodSandboxConfig {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("{}-{count}", contestant.name);
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "bench".to_owned(),
                attempt: 0,
            }),
            log_directory: self
                .node
                .dir()
                .join("logs")
                .join(name)
                .display()
                .to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.node.name()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }
}

/// As kubelet has it, but for the network: IPC is the pod's, processes are apart.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    }
}

fn container(contestant: &Contestant) -> ContainerConfig {
    let image = image(contestant.program(Job::Idle), contestant.form);
    let words = contestant.arguments(Job::Idle);
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: "idle".to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: image.clone(),
            user_specified_image: image,
            ..ImageSpec::default()
        }),
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        log_path: "idle.log".to_owned(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                ..LinuxContainerSecurityContext::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}

fn said<T>(what: &str, answer: Result<Response<T>, Status>) -> Result<T> {
    answer
        .map(Response::into_inner)
        .map_err(|status| anyhow!("{what}: {:?}: {}", status.code(), status.message()))
        .context("CRI")
}

fn config(dir: &Path, contestants: &[&Contestant]) -> String {
    const RUNTIMES: &str = r#"plugins."io.containerd.cri.v1.runtime".containerd.runtimes"#;
    let settings = dir.join("wisp.toml").display().to_string();
    let mut text = configuration::with_pods(3, dir);
    text += &format!(
        r#"
[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
"#,
        image("pause", Form::Native)
    );
    for contestant in contestants {
        let name = contestant.name;
        let path = &contestant.runtime;
        text += &match contestant.form {
            Form::Native => format!("\n[{RUNTIMES}.{name}]\nruntime_type = \"{path}\"\n"),
            _ => format!(
                "\n[{RUNTIMES}.{name}]\nruntime_type = \"io.containerd.{}.v1\"\nruntime_path = \"{path}\"\n",
                name.replace('-', "")
            ),
        };
        if let Some(binary) = contestant.oci_binary {
            text += &format!("[{RUNTIMES}.{name}.options]\nBinaryName = \"{binary}\"\n");
        }
        if name.starts_with("wisp") {
            text += &format!("[{RUNTIMES}.{name}.options]\nConfigPath = \"{settings}\"\n");
        }
    }
    text
}
