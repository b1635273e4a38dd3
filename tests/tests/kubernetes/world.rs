//! What a test is given: the cluster, and pods to describe.

use super::removal;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::Duration;
use wisp_tests::kubernetes::{Cluster, Kubectl, NODE};
use wisp_tests::oci;

/// How long a node may take to be installed, or to be left: containerd is restarted
/// twice and kubelet looks at its pods only now and then.
pub const INSTALLED: Duration = Duration::from_secs(180);
/// How long a pod may take to be what it is to be.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The label of nodes that have wisp.
pub const READY: &str = "wisp.io/ready";
/// The installer's namespace.
pub const SYSTEM: &str = "wisp-system";
/// The image of the command `tour`.
pub const TOUR: &str = "example.com/test/tour:1";
/// An image with a shell.
pub const BUSYBOX: &str = "example.com/test/busybox:1";

/// The cluster.
pub struct World {
    cluster: Option<Cluster>,
    installed: OnceLock<Result<(), String>>,
}

impl World {
    /// Starts it, unless tests are only to be listed.
    ///
    /// # Errors
    /// When it does not come up, or an image cannot be made.
    pub fn start(listed: bool) -> Result<Self> {
        let installed = OnceLock::new();
        if listed {
            return Ok(Self {
                cluster: None,
                installed,
            });
        }
        let cluster = Cluster::start()?;
        cluster.import_installer()?;
        cluster.import_guest("tour", TOUR, &[])?;
        cluster.import_guest("hello", "example.com/test/hello:1", &[])?;
        cluster.import_made(BUSYBOX, |output| oci::busybox(BUSYBOX, output))?;
        Ok(Self {
            cluster: Some(cluster),
            installed,
        })
    }

    /// The cluster.
    ///
    /// # Errors
    /// When there is none.
    pub fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("no cluster")
    }

    /// kubectl of who may do everything.
    ///
    /// # Errors
    /// When there is no cluster.
    pub fn kubectl(&self) -> Result<&Kubectl> {
        Ok(self.cluster()?.kubectl())
    }

    /// kubectl in the cluster once wisp is on its node, as the base has it.
    ///
    /// # Errors
    /// When it does not come there.
    pub fn installed(&self) -> Result<&Kubectl> {
        let kubectl = self.kubectl()?;
        let install = || {
            removal::remember()?;
            kubectl.ok(&["apply", "-k", &deploy("base")])?;
            ready(kubectl)
        };
        self.installed
            .get_or_init(|| install().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)?;
        Ok(kubectl)
    }
}

/// A path in `deploy/`.
pub fn deploy(name: &str) -> String {
    let path = wisp_tests::paths::repository().join("deploy").join(name);
    path.to_string_lossy().into_owned()
}

/// Waits until the node has wisp, as docs/kubernetes.md says it.
///
/// # Errors
/// Why not, as the installer and its node say it.
pub fn ready(kubectl: &Kubectl) -> Result<()> {
    let seconds = format!("--timeout={}s", INSTALLED.as_secs());
    let jsonpath = "--for=jsonpath={.metadata.labels.wisp\\.io/ready}=true";
    let waited = kubectl.ok(&["wait", "node", "--all", jsonpath, &seconds]);
    waited.map(drop).with_context(|| {
        let about = |arguments: &[&str]| kubectl.ok(arguments).unwrap_or_default();
        format!(
            "{}\n{}",
            about(&["--namespace", SYSTEM, "describe", "pods"]),
            about(&[
                "--namespace",
                SYSTEM,
                "logs",
                "daemonset/wisp-node-installer"
            ])
        )
    })
}

/// The label of the node.
///
/// # Errors
/// What kubectl said.
pub fn label(kubectl: &Kubectl) -> Result<Option<String>> {
    let node = kubectl.get(&["node", NODE])?;
    let label = &node["metadata"]["labels"][READY];
    Ok(label.as_str().map(str::to_owned))
}

/// A pod of one container, `app`, that does not come again, to be changed.
pub fn pod(name: &str, image: &str, args: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "runtimeClassName": "wisp",
            "restartPolicy": "Never",
            "containers": [{ "name": "app", "image": image, "args": args }],
        },
    })
}

/// Makes it.
///
/// # Errors
/// What kubectl said.
pub fn create(kubectl: &Kubectl, object: &Value) -> Result<()> {
    kubectl
        .take(&["create", "-f", "-"], &object.to_string())
        .map(drop)
}

/// Waits for a pod's phase.
///
/// # Errors
/// What it is instead.
pub fn phase(kubectl: &Kubectl, name: &str, wanted: &str) -> Result<Value> {
    let found = kubectl.until(&["pod", name], PATIENCE, |pod| {
        (pod["status"]["phase"] == wanted).then(|| pod.clone())
    });
    found.with_context(|| events(kubectl, name))
}

/// Waits until a pod is ready.
///
/// # Errors
/// What it is instead.
pub fn until_ready(kubectl: &Kubectl, name: &str) -> Result<()> {
    let ready = kubectl.ok(&[
        "wait",
        "--for=condition=Ready",
        &format!("--timeout={}s", PATIENCE.as_secs()),
        &format!("pod/{name}"),
    ]);
    ready.map(drop).with_context(|| events(kubectl, name))
}

/// Deletes a pod, and does not wait as long as its grace lasts.
///
/// # Errors
/// When it is still there.
pub fn delete(kubectl: &Kubectl, name: &str) -> Result<()> {
    let seconds = format!("--timeout={}s", PATIENCE.as_secs());
    let gone = kubectl.ok(&["delete", "pod", name, &seconds]);
    gone.map(drop).with_context(|| events(kubectl, name))
}

/// What is told of an object.
pub fn events(kubectl: &Kubectl, name: &str) -> String {
    let of = format!("involvedObject.name={name}");
    kubectl
        .ok(&["get", "events", "--field-selector", &of])
        .unwrap_or_default()
}

/// How the container of a pod ended.
///
/// # Errors
/// When it has not.
pub fn ending(pod: &Value) -> Result<&Value> {
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(ended.is_object(), "it has not ended: {}", pod["status"]);
    Ok(ended)
}
