//! A cluster of one node. It is started where `tests/kubernetes/node.sh` runs the
//! suite: in namespaces and a root directory of its own, of which it has all.

use super::containerd::{self, Containerd};
use super::{Control, Kubectl, Server, called};
use crate::images;
use crate::{oci, paths};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The node's name.
pub const NODE: &str = "node-1";
/// The node's address, as `tests/kubernetes/node.sh` made it.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The addresses of pods.
const PODS: &str = "10.244.0.0/16";
/// Where Debian has the CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";
const PAUSE: &str = "localhost/wisp/pause:test";
/// What `tests/kubernetes/run.sh` made.
const DISK: &str = "/disk";
/// How long the node may take to be ready.
const UP: Duration = Duration::from_secs(180);

/// The cluster; all of its servers end when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    // In this order they end.
    _kubelet: Server,
    _others: Vec<Server>,
    containerd: Containerd,
    control: Control,
}

impl Cluster {
    /// Starts it, and waits until pods can be made.
    ///
    /// # Errors
    /// When this is not the place for it, or something does not come up.
    pub fn start() -> Result<Self> {
        ensure!(
            std::os::unix::process::parent_id() == 1 && Path::new(DISK).is_dir(),
            "this is no node: run `make test-kubernetes`"
        );
        let logs = Path::new("/var/log");
        network()?;
        let containerd = Containerd::start(logs, PLUGINS, PAUSE)?;
        let control = Control::start(Path::new("/var/lib/control"), logs, ADDRESS)?;
        let others = vec![
            controllers(logs, &control)?,
            scheduler(logs, &control)?,
            proxy(logs, &control)?,
        ];
        containerd.import(&pause()?)?;
        let mut kubelet = kubelet(logs, &control)?;
        let kubectl = control.kubectl();
        kubelet.until("the node is ready", UP, || {
            std::thread::sleep(Duration::from_millis(500));
            let node = kubectl.get(&["node", NODE]).ok()?;
            condition(&node, "Ready").then_some(())
        })?;
        control.until_there(&["serviceaccount", "default"])?;
        Ok(Self {
            _kubelet: kubelet,
            _others: others,
            containerd,
            control,
        })
    }

    /// kubectl of who may do everything.
    pub fn kubectl(&self) -> &Kubectl {
        self.control.kubectl()
    }

    /// The API server.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Imports the image of the installer, which `make image` made.
    ///
    /// # Errors
    /// What `ctr` said.
    pub fn import_installer(&self) -> Result<()> {
        self.containerd
            .import(&Path::new(DISK).join("installer.tar"))
    }

    /// Imports the image `reference` of an example guest; `more` is for `wisp pack`.
    ///
    /// # Errors
    /// What `wisp pack` or `ctr` said.
    pub fn import_guest(&self, guest: &str, reference: &str, more: &[&str]) -> Result<()> {
        let archive = archive(reference);
        images::pack(&paths::guest(guest)?, reference, more, &archive)?;
        self.containerd.import(&archive)
    }

    /// Imports an image that `make` writes.
    ///
    /// # Errors
    /// What `make` or `ctr` said.
    pub fn import_made(
        &self,
        reference: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let archive = archive(reference);
        make(&archive)?;
        self.containerd.import(&archive)
    }
}

/// Whether an object has a condition.
pub fn condition(object: &serde_json::Value, name: &str) -> bool {
    let all = object["status"]["conditions"].as_array();
    all.into_iter()
        .flatten()
        .any(|one| one["type"] == name && one["status"] == "True")
}

fn archive(reference: &str) -> PathBuf {
    Path::new(DISK)
        .join(reference.replace(['/', ':'], "-"))
        .with_extension("tar")
}

fn pause() -> Result<PathBuf> {
    let program = fs::read(Path::new(DISK).join("pause")).context("pause")?;
    let archive = archive(PAUSE);
    oci::Image::new(&["/pause"])
        .files(&[oci::Entry::File("pause", 0o755, &program)])?
        .write(PAUSE, false, &archive)?;
    Ok(archive)
}

fn network() -> Result<()> {
    let configuration = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": "10.244.0.0/24" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    fs::create_dir_all("/etc/cni/net.d")?;
    fs::write("/etc/cni/net.d/10-pods.conflist", configuration.to_string())?;
    Ok(())
}

fn controllers(logs: &Path, control: &Control) -> Result<Server> {
    let name = "system:kube-controller-manager";
    let authority = control.authority();
    let kubeconfig = authority.kubeconfig(control.url(), name, &[])?;
    let root = authority.certificate();
    let mut command = called("kube-controller-manager");
    command
        .args(["--leader-elect=false", "--use-service-account-credentials"])
        .args(["--bind-address=127.0.0.1", "--profiling=false"]);
    for (flag, path) in [
        ("kubeconfig", kubeconfig.as_path()),
        ("root-ca-file", root.as_path()),
        ("service-account-private-key-file", control.signer()),
    ] {
        command.arg(format!("--{flag}={}", path.display()));
    }
    Server::start(logs, "kube-controller-manager", &mut command)
}

fn scheduler(logs: &Path, control: &Control) -> Result<Server> {
    let name = "system:kube-scheduler";
    let kubeconfig = control.authority().kubeconfig(control.url(), name, &[])?;
    let mut command = called("kube-scheduler");
    command
        .args(["--leader-elect=false", "--bind-address=127.0.0.1"])
        .arg(format!("--kubeconfig={}", kubeconfig.display()));
    Server::start(logs, "kube-scheduler", &mut command)
}

fn proxy(logs: &Path, control: &Control) -> Result<Server> {
    let name = "system:kube-proxy";
    let kubeconfig = control.authority().kubeconfig(control.url(), name, &[])?;
    let mut command = called("kube-proxy");
    command
        .args(["--proxy-mode=iptables", "--hostname-override", NODE])
        .arg(format!("--cluster-cidr={PODS}"))
        // These are the machine's.
        .args(["--conntrack-max-per-core=0", "--conntrack-min=0"])
        .args(["--conntrack-tcp-timeout-established=0s"])
        .args(["--conntrack-tcp-timeout-close-wait=0s"])
        .arg(format!("--kubeconfig={}", kubeconfig.display()));
    Server::start(logs, "kube-proxy", &mut command)
}

fn kubelet(logs: &Path, control: &Control) -> Result<Server> {
    let authority = control.authority();
    let name = format!("system:node:{NODE}");
    let kubeconfig = authority.kubeconfig(control.url(), &name, &["system:nodes"])?;
    let (certificate, key) = authority.issue("kubelet", &[], &[NODE, &ADDRESS.to_string()])?;
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": authority.certificate() },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "volumePluginDir": "/var/lib/kubelet/plugins-exec",
        // The machine's disk is not only the node's.
        "evictionHard": { "memory.available": "10Mi", "nodefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "5s",
    });
    let path = Path::new("/var/lib/kubelet/config.json");
    fs::write(path, configuration.to_string())?;
    let mut command = called("kubelet");
    command
        .arg(format!("--config={}", path.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--hostname-override={NODE}"))
        .arg(format!("--node-ip={ADDRESS}"));
    Server::start(logs, "kubelet", &mut command)
}
