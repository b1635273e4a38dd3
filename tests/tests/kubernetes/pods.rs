//! Pods of one container: how they run, end, fail and are refused.

use super::Case;
use super::world::{
    BUSYBOX, PATIENCE, TOUR, World, create, delete, ending, events, phase, pod, until_ready,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use wisp_tests::kubernetes::Kubectl;
use wisp_tests::{leaks, wait};

pub const CASES: &[Case] = &[
    ("a command completes, with its output as logs", completes),
    ("its exit code is the container's", exit_code),
    ("a trap is an error with its reason", trap),
    ("what it writes as termination message is told", message),
    ("an annotation that is refused is told in an event", refused),
    ("a capability that was not granted is denied", denied),
    ("limits are those of its cgroup", limits),
    (
        "who takes too much memory is ended, and the reason told",
        too_much,
    ),
    ("a container that fails is started again", again),
    ("a failing liveness probe starts it again", unhealthy),
    ("a pod that is deleted ends at once", deleted),
    ("an init container runs before", init),
];

fn completes(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    create(kubectl, &pod("hello", "example.com/test/hello:1", &[]))?;
    let ended = phase(kubectl, "hello", "Succeeded")?;
    let how = ending(&ended)?;
    ensure!(
        how["exitCode"] == 0 && how["reason"] == "Completed",
        "{how}"
    );
    let logs = kubectl.ok(&["logs", "hello"])?;
    ensure!(logs == "hello from a component\n", "{logs:?}");
    // The class has given the pod its overhead and its nodes.
    let spec = &ended["spec"];
    ensure!(spec["overhead"]["memory"] == "4Mi", "{spec}");
    ensure!(spec["nodeSelector"]["wisp.io/ready"] == "true", "{spec}");
    delete(kubectl, "hello")
}

fn exit_code(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    create(kubectl, &pod("seven", TOUR, &["exit", "7"]))?;
    let ended = phase(kubectl, "seven", "Failed")?;
    let how = ending(&ended)?;
    ensure!(how["exitCode"] == 7 && how["reason"] == "Error", "{how}");
    delete(kubectl, "seven")
}

fn trap(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut traps = pod("trap", TOUR, &["trap"]);
    traps["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    create(kubectl, &traps)?;
    let ended = phase(kubectl, "trap", "Failed")?;
    let how = ending(&ended)?;
    ensure!(how["exitCode"] == 134 && how["reason"] == "Error", "{how}");
    let logs = kubectl.ok(&["logs", "trap"])?;
    ensure!(
        logs.contains("unreachable") && logs.contains("inner"),
        "{logs}"
    );
    let described = kubectl.ok(&["describe", "pod", "trap"])?;
    for words in ["Exit Code:    134", "unreachable", "inner"] {
        ensure!(described.contains(words), "no {words}: {described}");
    }
    delete(kubectl, "trap")
}

fn message(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let file = "/dev/termination-log";
    create(
        kubectl,
        &pod("message", TOUR, &["write", file, "all is well"]),
    )?;
    let ended = phase(kubectl, "message", "Succeeded")?;
    let how = ending(&ended)?;
    ensure!(how["message"] == "all is well", "{how}");
    delete(kubectl, "message")
}

fn refused(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut wrong = pod("refused", TOUR, &["cwd"]);
    wrong["metadata"]["annotations"] = json!({ "io.wisp.fs.root": "perhaps" });
    create(kubectl, &wrong)?;
    let told = wait::until(PATIENCE, || {
        let events = events(kubectl, "refused");
        let told = events.contains("io.wisp.fs.root") && events.contains("perhaps");
        told.then_some(())
    });
    told.with_context(|| events(kubectl, "refused"))?;
    let described = kubectl.ok(&["describe", "pod", "refused"])?;
    ensure!(described.contains("io.wisp.fs.root"), "{described}");
    delete(kubectl, "refused")
}

fn denied(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let address = "10.96.0.1:443";
    create(kubectl, &pod("denied", TOUR, &["tcp-connect", address]))?;
    let ended = phase(kubectl, "denied", "Failed")?;
    ensure!(ending(&ended)?["exitCode"] == 1, "{}", ended["status"]);
    // The line that would allow it.
    let logs = kubectl.ok(&["logs", "denied"])?;
    ensure!(logs.contains("io.wisp.net.outbound"), "{logs}");
    delete(kubectl, "denied")
}

/// The cgroup of a pod's container, as one controller of version 1 or as version 2
/// has it.
fn group(kubectl: &Kubectl, name: &str, controller: &str) -> Result<PathBuf> {
    let pod = kubectl.get(&["pod", name])?;
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .and_then(|id| id.strip_prefix("containerd://"))
        .context("no container")?;
    let mount = std::path::Path::new(wisp_tests::cgroups::MOUNT);
    let root = match wisp_tests::cgroups::unified() {
        true => mount.to_owned(),
        false => mount.join(controller),
    };
    leaks::below(&root)
        .into_iter()
        .find(|path| path.ends_with(id) && path.is_dir())
        .with_context(|| format!("no cgroup {id} of {controller}"))
}

fn limits(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut limited = pod("limited", TOUR, &["sleep", "100000000"]);
    limited["spec"]["containers"][0]["resources"] = json!({
        "requests": { "cpu": "50m", "memory": "32Mi" },
        "limits": { "cpu": "250m", "memory": "96Mi" },
    });
    create(kubectl, &limited)?;
    until_ready(kubectl, "limited")?;
    let read = |controller: &str, first: &str, second: &str| -> Result<String> {
        let file = match wisp_tests::cgroups::unified() {
            true => second,
            false => first,
        };
        let text = fs::read_to_string(group(kubectl, "limited", controller)?.join(file))?;
        Ok(text.trim().to_owned())
    };
    let memory = read("memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(memory == (96 << 20).to_string(), "{memory}");
    let cpu = read("cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(["25000", "25000 100000"].contains(&cpu.as_str()), "{cpu}");
    delete(kubectl, "limited")
}

fn too_much(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut hog = pod("hog", TOUR, &["hog", "500"]);
    hog["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "64Mi" } });
    hog["spec"]["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    create(kubectl, &hog)?;
    let ended = phase(kubectl, "hog", "Failed")?;
    let how = ending(&ended)?;
    ensure!(how["exitCode"] != 0, "{how}");
    // Its limiter says no before the kernel does.
    let told = how["reason"] == "OOMKilled"
        || how["message"]
            .as_str()
            .is_some_and(|text| text.contains("memory"));
    ensure!(told, "{how}");
    delete(kubectl, "hog")
}

fn again(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut failing = pod("failing", TOUR, &["exit", "3"]);
    failing["spec"]["restartPolicy"] = "Always".into();
    create(kubectl, &failing)?;
    let state = kubectl.until(&["pod", "failing"], PATIENCE, |pod| {
        let state = &pod["status"]["containerStatuses"][0];
        (state["restartCount"].as_u64()? >= 2).then(|| state.clone())
    })?;
    ensure!(state["lastState"]["terminated"]["exitCode"] == 3, "{state}");
    delete(kubectl, "failing")
}

fn unhealthy(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut sick = pod("sick", "example.com/shop/front:1", &[]);
    sick["spec"]["restartPolicy"] = "Always".into();
    sick["spec"]["containers"][0]["livenessProbe"] = json!({
        "httpGet": { "path": "/missing", "port": 8080 },
        "periodSeconds": 1,
        "failureThreshold": 2,
    });
    super::samples::import(world)?;
    create(kubectl, &sick)?;
    let state: Value = kubectl.until(&["pod", "sick"], PATIENCE, |pod| {
        let state = &pod["status"]["containerStatuses"][0];
        (state["restartCount"].as_u64()? >= 1).then(|| state.clone())
    })?;
    // Asked to end, it ended well.
    ensure!(state["lastState"]["terminated"]["exitCode"] == 0, "{state}");
    let told = events(kubectl, "sick");
    ensure!(told.contains("Liveness probe failed"), "{told}");
    delete(kubectl, "sick")
}

/// With a grace of ten minutes: who waits for SIGKILL is late.
fn deleted(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    super::samples::import(world)?;
    for (name, image, args) in [
        ("ends-command", TOUR, &["sleep", "100000000"][..]),
        ("ends-spinning", TOUR, &["spin"][..]),
        ("ends-server", "example.com/shop/front:1", &[][..]),
    ] {
        let mut lasting = pod(name, image, args);
        lasting["spec"]["terminationGracePeriodSeconds"] = 600.into();
        create(kubectl, &lasting)?;
        until_ready(kubectl, name)?;
        delete(kubectl, name)?;
    }
    Ok(())
}

fn init(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    let mut both = pod("both", TOUR, &["read", "/data/note"]);
    let mount = json!([{ "name": "data", "mountPath": "/data" }]);
    let spec = &mut both["spec"];
    spec["containers"][0]["volumeMounts"] = mount.clone();
    spec["initContainers"] = json!([{
        "name": "first", "image": BUSYBOX, "volumeMounts": mount,
        "command": ["sh", "-c", "echo from a native program >/data/note"],
    }]);
    spec["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
    create(kubectl, &both)?;
    phase(kubectl, "both", "Succeeded")?;
    let logs = kubectl.ok(&["logs", "both"])?;
    ensure!(logs == "from a native program\n", "{logs:?}");
    delete(kubectl, "both")
}
