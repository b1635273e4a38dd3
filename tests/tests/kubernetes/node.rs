//! wisp comes to the node.

use super::Case;
use super::world::{INSTALLED, SYSTEM, World, label};
use anyhow::{Context, Result, ensure};
use std::fs;
use wisp_tests::kubernetes::NODE;

pub const CASES: &[Case] = &[
    ("kubectl apply -k brings wisp to the node", comes),
    ("the DaemonSet's pod is ready and has its numbers", measured),
    ("the admission policy has no warnings", policy),
];

fn comes(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    ensure!(label(kubectl)?.as_deref() == Some("true"), "no label");
    let node = kubectl.get(&["node", NODE])?;
    let status = &node["metadata"]["annotations"]["wisp.io/status"];
    let status: serde_json::Value = serde_json::from_str(status.as_str().context("no status")?)?;
    ensure!(status["state"] == "ready", "{status}");
    ensure!(
        status["containerd"]
            .as_str()
            .is_some_and(|v| v.contains("2.1")),
        "{status}"
    );
    let class = kubectl.get(&["runtimeclass", "wisp"])?;
    ensure!(class["handler"] == "wisp", "{class}");
    // kubelet has heard of it, too: it asks the runtime for its handlers.
    kubectl.until(&["node", NODE], INSTALLED, |node| {
        let handlers = node["status"]["runtimeHandlers"].as_array()?;
        handlers
            .iter()
            .any(|one| one["name"] == "wisp")
            .then_some(())
    })?;
    let events = kubectl.ok(&["get", "events", "--field-selector", "reason=WispInstalled"])?;
    ensure!(
        events.contains("is installed and runs containers"),
        "{events}"
    );
    let described = kubectl.ok(&["describe", "node", NODE])?;
    ensure!(described.contains("WispInstalled"), "{described}");
    let config = fs::read_to_string("/etc/containerd/config.toml")?;
    ensure!(
        config.contains("# Changed by hand: ask before you do.\n"),
        "{config}"
    );
    ensure!(config.contains("runtimes.wisp"), "{config}");
    Ok(())
}

fn measured(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let system = kubectl.with(&["--namespace", SYSTEM]);
    system.ok(&[
        "rollout",
        "status",
        "daemonset/wisp-node-installer",
        &format!("--timeout={}s", INSTALLED.as_secs()),
    ])?;
    let pods = system.get(&["pods"])?;
    let name = pods["items"][0]["metadata"]["name"]
        .as_str()
        .context("no pod")?;
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:9913/proxy/metrics");
    let metrics = kubectl.ok(&["get", "--raw", &path])?;
    ensure!(metrics.contains("wisp_node_ready 1\n"), "{metrics}");
    ensure!(
        metrics.contains("wisp_node_api_errors_total 0\n"),
        "{metrics}"
    );
    Ok(())
}

/// Kubernetes itself looks at the types in it.
fn policy(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let arguments = ["validatingadmissionpolicy", "wisp-node-installer"];
    let checked = kubectl.until(&arguments, INSTALLED, |policy| {
        let status = &policy["status"];
        (status["observedGeneration"] == policy["metadata"]["generation"]).then(|| status.clone())
    })?;
    ensure!(
        checked["typeChecking"]["expressionWarnings"].is_null(),
        "{checked}"
    );
    Ok(())
}
