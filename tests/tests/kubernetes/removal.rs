//! wisp goes from the node, as docs/kubernetes.md says it.

use super::Case;
use super::world::{
    INSTALLED, SYSTEM, TOUR, World, create, delete, deploy, ending, label, phase, pod, ready,
    until_ready,
};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use wisp_tests::kubernetes::{Kubectl, NODE};
use wisp_tests::{command, leaks, paths, wait};

pub const CASES: &[Case] = &[
    (
        "deleted while a pod runs, it goes after the pod",
        after_pods,
    ),
    ("told to go, it waits for pods and then goes", told_to_go),
    ("helm brings it, and takes it away", helm),
];

/// What the node's owner has: everything below here must be as it was, byte by byte.
const OWNED: [&str; 4] = ["/etc", "/opt", "/usr/local", "/var/lib"];
/// What is compiled stays, whoever goes (docs/operations.md, "The cache").
const CACHE: &str = "/var/lib/wisp/aot";
/// What is not wisp's, and changes.
const OTHERS: [&str; 5] = [
    "/var/lib/containerd",
    "/var/lib/control",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/etc/cni",
];

/// Files and what is in them, links and where they lead, directories.
fn owned() -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for root in OWNED {
        for path in leaks::below(Path::new(root)) {
            let is_cache =
                path.starts_with(CACHE) || Path::new(CACHE).parent() == Some(path.as_path());
            if is_cache || OTHERS.iter().any(|other| path.starts_with(other)) {
                continue;
            }
            let kind = fs::symlink_metadata(&path)?.file_type();
            let content = match (kind.is_symlink(), kind.is_file()) {
                (true, _) => fs::read_link(&path)?.into_os_string().into_encoded_bytes(),
                (_, true) => fs::read(&path)?,
                _ => Vec::new(),
            };
            all.insert(path.display().to_string(), content);
        }
    }
    Ok(all)
}

/// The node as it was before wisp came first.
///
/// # Errors
/// When it cannot be read.
pub fn remember() -> Result<()> {
    let before = owned()?;
    let mut known = BEFORE.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    known.get_or_insert(before);
    Ok(())
}

static BEFORE: std::sync::Mutex<Option<BTreeMap<String, Vec<u8>>>> = std::sync::Mutex::new(None);

/// That nothing of wisp is there any more, and nothing else has changed.
fn gone(kubectl: &Kubectl) -> Result<()> {
    ensure!(label(kubectl)?.is_none(), "the label is still there");
    let node = kubectl.get(&["node", NODE])?;
    let status = &node["metadata"]["annotations"]["wisp.io/status"];
    ensure!(status.is_null(), "{status}");
    let known = BEFORE.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    let before = known.as_ref().context("nobody looked before")?;
    let after = owned()?;
    for (path, content) in before {
        let found = after.get(path).with_context(|| format!("{path} is gone"))?;
        ensure!(found == content, "{path} has changed");
    }
    let new: Vec<&String> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .collect();
    ensure!(new.is_empty(), "left: {new:?}");
    let processes: Vec<_> = wisp_tests::processes::all()
        .into_iter()
        .filter(|process| process.line.contains("containerd-shim-wisp"))
        .collect();
    ensure!(processes.is_empty(), "left: {processes:?}");
    let refused = kubectl.until(&["node", NODE], INSTALLED, |node| {
        let handlers = node["status"]["runtimeHandlers"].as_array()?;
        (!handlers.iter().any(|one| one["name"] == "wisp")).then_some(())
    });
    refused.context("containerd still has the runtime")
}

fn system(kubectl: &Kubectl) -> Kubectl {
    kubectl.with(&["--namespace", SYSTEM])
}

/// Deletes the pods of all tests before.
fn without_pods(kubectl: &Kubectl) -> Result<()> {
    for kind in ["hpa", "deployments", "cronjobs", "jobs", "pods"] {
        kubectl.ok(&["delete", kind, "--all", "--timeout=120s"])?;
    }
    Ok(())
}

/// Deletes what the base brought and is still there.
fn rest(kubectl: &Kubectl) -> Result<()> {
    let base = deploy("base");
    let all = [
        "delete",
        "-k",
        &base,
        "--ignore-not-found",
        "--timeout=120s",
    ];
    kubectl.ok(&all).map(drop)
}

fn running(kubectl: &Kubectl, name: &str) -> Result<()> {
    create(kubectl, &pod(name, TOUR, &["sleep", "1000000000"]))?;
    until_ready(kubectl, name)
}

fn after_pods(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    without_pods(kubectl)?;
    running(kubectl, "stays")?;
    let mut deleting = system(kubectl)
        .command(&[
            "delete",
            "daemonset",
            "wisp-node-installer",
            "--cascade=foreground",
        ])
        .stdout(Stdio::null())
        .spawn()?;
    let no_label = wait::until(INSTALLED, || label(kubectl).ok()?.is_none().then_some(()));
    no_label.context("the label is still there")?;
    // It is there for as long as the pod is.
    let stays = kubectl.get(&["pod", "stays"])?;
    ensure!(stays["status"]["phase"] == "Running", "{}", stays["status"]);
    let said = kubectl.ok(&["exec", "stays", "--", "/tour.wasm", "args", "alive"])?;
    ensure!(said == "alive\n", "{said:?}");
    ensure!(deleting.try_wait()?.is_none(), "it did not wait");
    // New ones wait for a node that has it.
    create(kubectl, &pod("late", TOUR, &["cwd"]))?;
    let told = kubectl.until(&["pod", "late"], INSTALLED, |pod| {
        let conditions = pod["status"]["conditions"].as_array()?;
        let scheduled = conditions
            .iter()
            .find(|one| one["type"] == "PodScheduled")?;
        (scheduled["reason"] == "Unschedulable").then(|| scheduled["message"].to_string())
    })?;
    ensure!(told.contains("node affinity/selector"), "{told}");
    delete(kubectl, "late")?;
    delete(kubectl, "stays")?;
    let deleted = wait::until(INSTALLED, || deleting.try_wait().ok().flatten());
    let deleted = deleted.context("the DaemonSet is still there")?;
    ensure!(deleted.success(), "{deleted}");
    gone(kubectl)?;
    rest(kubectl)?;
    kubectl.refused(&["get", "runtimeclass", "wisp"], "", &["not found"])?;
    // Native pods have not noticed, and come as before.
    let mut native = pod("native", super::world::BUSYBOX, &["true"]);
    native["spec"]["runtimeClassName"] = serde_json::Value::Null;
    create(kubectl, &native)?;
    let ended = phase(kubectl, "native", "Succeeded")?;
    ensure!(ending(&ended)?["exitCode"] == 0);
    delete(kubectl, "native")
}

fn told_to_go(world: &World) -> Result<()> {
    world.installed()?;
    let kubectl = world.kubectl()?;
    without_pods(kubectl)?;
    kubectl.ok(&["apply", "-k", &deploy("base")])?;
    ready(kubectl)?;
    running(kubectl, "stays")?;
    kubectl.ok(&["apply", "-k", &deploy("overlays/uninstall")])?;
    let told = wait::until(INSTALLED, || {
        let of = ["get", "events", "--field-selector", "reason=WispNotRemoved"];
        let events = kubectl.ok(&of).ok()?;
        events.contains("still run").then_some(())
    });
    told.context("no event")?;
    ensure!(label(kubectl)?.is_none(), "the label is still there");
    let said = kubectl.ok(&["exec", "stays", "--", "/tour.wasm", "args", "alive"])?;
    ensure!(said == "alive\n", "{said:?}");
    delete(kubectl, "stays")?;
    let seconds = format!("--timeout={}s", INSTALLED.as_secs());
    system(kubectl).ok(&[
        "rollout",
        "status",
        "daemonset",
        "wisp-node-installer",
        &seconds,
    ])?;
    gone(kubectl)?;
    rest(kubectl)?;
    gone(kubectl)
}

fn helm(world: &World) -> Result<()> {
    world.installed()?;
    let kubectl = world.kubectl()?;
    without_pods(kubectl)?;
    rest(kubectl)?;
    let helm = |arguments: &[&str]| -> Result<()> {
        let mut helm = Command::new(paths::repository().join("target/tools/bin/helm"));
        helm.args(arguments)
            .args(["--namespace", SYSTEM])
            .env("KUBECONFIG", kubectl.kubeconfig())
            .env("HOME", "/tmp");
        let ended = command::run(&mut helm, Vec::new(), Duration::from_secs(400))?;
        ensure!(
            ended.code == 0,
            "helm {arguments:?}: {}{}",
            ended.err(),
            ended.out()
        );
        Ok(())
    };
    // What the namespace must admit.
    kubectl.ok(&["create", "namespace", SYSTEM])?;
    let label = "pod-security.kubernetes.io/enforce=privileged";
    kubectl.ok(&["label", "namespace", SYSTEM, label])?;
    helm(&[
        "install",
        "wisp",
        &deploy("helm/wisp"),
        "--wait",
        "--timeout=5m",
    ])?;
    ready(kubectl)?;
    create(kubectl, &pod("hello", "example.com/test/hello:1", &[]))?;
    phase(kubectl, "hello", "Succeeded")?;
    delete(kubectl, "hello")?;
    helm(&[
        "upgrade",
        "wisp",
        &deploy("helm/wisp"),
        "--wait",
        "--timeout=5m",
        "--set",
        "installer.interval=30",
    ])?;
    helm(&["uninstall", "wisp", "--wait", "--timeout=5m"])?;
    gone(kubectl)?;
    for what in [
        "runtimeclass/wisp",
        "clusterrole/wisp-node-installer",
        "validatingadmissionpolicy/wisp-node-installer",
        "validatingadmissionpolicybinding/wisp-node-installer",
    ] {
        kubectl.refused(&["get", what], "", &["not found"])?;
    }
    kubectl.ok(&["delete", "namespace", SYSTEM]).map(drop)
}
