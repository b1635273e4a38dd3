//! The samples as they are, with images of the names that they have.

use super::Case;
use super::world::{PATIENCE, World, delete, deploy, events, phase, until_ready};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use wisp_tests::kubernetes::{Kubectl, NODE};
use wisp_tests::{http, oci, paths, wait};

pub const CASES: &[Case] = &[
    (
        "http.yaml: a Deployment is ready, scaled and served",
        served,
    ),
    (
        "http.yaml: its pods have numbers of cpu and memory",
        measured,
    ),
    ("http.yaml: a rolling update loses no request", updated),
    ("cronjob.yaml: its job completes", scheduled),
    (
        "sidecar.yaml: a component talks through a native sidecar",
        sidecar,
    ),
    ("volumes.yaml: ConfigMap, Secret and a volume", volumes),
    ("capabilities.yaml: it runs as it asks to", careful),
];

const FRONT: &str = "example.com/shop/front:1";

/// Brings the images that the samples name.
///
/// # Errors
/// When one cannot be made.
pub fn import(world: &World) -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    DONE.get_or_init(|| import_all(world).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn import_all(world: &World) -> Result<()> {
    let cluster = world.cluster()?;
    // Beside the server a command, for exec.
    let tour = format!("{}:/bin/", paths::guest("tour")?.display());
    cluster.import_guest("http-02", FRONT, &["--add", &tour])?;
    cluster.import_guest("http-02", "example.com/shop/careful:1", &[])?;
    cluster.import_guest(
        "tour",
        "example.com/shop/report:1",
        &["--entrypoint", "/tour.wasm", "--entrypoint", "args"],
    )?;
    let config = format!("{}:/bin/", paths::guest("config")?.display());
    let sleep = ["--cmd", "sleep", "--cmd", "1000000000", "--add", &config];
    cluster.import_guest("tour", "example.com/shop/files:1", &sleep)?;
    let proxy = "example.com/mesh/proxy:1";
    cluster.import_made(proxy, |output| proxy_image(proxy, output))
}

/// A sidecar that listens where it is told, and answers every request.
fn proxy_image(reference: &str, output: &Path) -> Result<()> {
    let busybox = std::fs::read("/bin/busybox")?;
    let script = b"#!/bin/sh\n[ \"$1 $3\" = '--listen --health' ] || exit 9\n\
                   httpd -p \"$4\" -h /www\nexec httpd -f -p \"$2\" -h /www\n";
    let mut entries = vec![
        oci::Entry::Dir("bin"),
        oci::Entry::Dir("www"),
        oci::Entry::File("bin/busybox", 0o755, &busybox),
        oci::Entry::File("proxy", 0o755, script),
        oci::Entry::File("www/ready", 0o644, b"ready\n"),
        oci::Entry::File("www/index.html", 0o644, b"through the sidecar\n"),
    ];
    for name in ["bin/sh", "bin/httpd", "bin/id", "bin/cat", "bin/stty"] {
        entries.push(oci::Entry::Link(name, "busybox"));
    }
    oci::Image::new(&["/proxy"])
        .files(&entries)?
        .write(reference, false, output)
}

/// The Deployment `front`, ready.
///
/// # Errors
/// When it does not get there.
pub fn front(world: &World) -> Result<&Kubectl> {
    let kubectl = world.installed()?;
    import(world)?;
    kubectl.ok(&["apply", "-f", &deploy("samples/http.yaml")])?;
    // The autoscaler wants two at least.
    let rolled = kubectl.until(&["deployment", "front"], PATIENCE, |front| {
        (front["status"]["readyReplicas"] == 2).then_some(())
    });
    rolled.with_context(|| {
        let described = kubectl.ok(&["describe", "pods", "-l", "app.kubernetes.io/name=front"]);
        described.unwrap_or_default()
    })?;
    Ok(kubectl)
}

fn cluster_ip(kubectl: &Kubectl) -> Result<SocketAddr> {
    let service = kubectl.get(&["service", "front"])?;
    let ip = service["spec"]["clusterIP"]
        .as_str()
        .context("no address")?;
    Ok(format!("{ip}:80").parse()?)
}

fn served(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let address = cluster_ip(kubectl)?;
    let answer = wait::until(PATIENCE, || http::get_from(address, "/").ok())
        .context("the Service does not answer")?;
    ensure!(
        answer.status == 200 && answer.text().contains("hello from wasi:http"),
        "{answer:?}"
    );
    let slices = kubectl.get(&["endpointslices", "-l", "kubernetes.io/service-name=front"])?;
    let ready = slices["items"][0]["endpoints"]
        .as_array()
        .map_or(0, Vec::len);
    ensure!(ready == 2, "{slices}");
    // More often than the liveness probe needs to fail.
    std::thread::sleep(wait::here(std::time::Duration::from_secs(5)));
    let pods = kubectl.get(&["pods", "-l", "app.kubernetes.io/name=front"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        ensure!(
            pod["status"]["containerStatuses"][0]["restartCount"] == 0,
            "{}",
            pod["status"]
        );
    }
    Ok(())
}

fn names(kubectl: &Kubectl) -> Result<Vec<String>> {
    let pods = kubectl.get(&["pods", "-l", "app.kubernetes.io/name=front"])?;
    let pods = pods["items"].as_array().context("no pods")?;
    let names = pods
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

fn measured(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let name = names(kubectl)?.pop().context("no pods")?;
    let proxy = |path: &str| {
        kubectl.ok(&[
            "get",
            "--raw",
            &format!("/api/v1/nodes/{NODE}/proxy/{path}"),
        ])
    };
    let mut last = String::new();
    // What `kubectl top` and the autoscaler read; kubelet measures now and then.
    let found = wait::until(PATIENCE, || {
        last = proxy("metrics/resource").ok()?;
        let value = |family: &str| -> Option<f64> {
            let pod = format!("pod=\"{name}\"");
            let of_it = |line: &&str| line.starts_with(family) && line.contains(&pod);
            let line = last.lines().find(of_it)?;
            // The number, before the time.
            line.rsplit_once("} ")?.1.split(' ').next()?.parse().ok()
        };
        let cpu = value("container_cpu_usage_seconds_total")?;
        let memory = value("container_memory_working_set_bytes")?;
        let pod = value("pod_memory_working_set_bytes")?;
        (cpu > 0.0 && memory > 0.0 && pod >= memory).then_some(())
    });
    found.with_context(|| format!("metrics/resource of {name}:\n{last}"))?;
    let found = wait::until(PATIENCE, || {
        last = proxy("stats/summary").ok()?;
        let summary: Value = serde_json::from_str(&last).ok()?;
        let pods = summary["pods"].as_array()?.clone();
        let pod = pods
            .into_iter()
            .find(|pod| pod["podRef"]["name"] == name.as_str())?;
        let front = &pod["containers"][0];
        let positive = |value: &Value| value.as_u64().filter(|number| *number > 0);
        positive(&front["cpu"]["usageCoreNanoSeconds"])?;
        positive(&front["memory"]["workingSetBytes"])?;
        positive(&pod["memory"]["workingSetBytes"])
    });
    found
        .map(drop)
        .with_context(|| format!("stats/summary of {name}:\n{last}"))
}

/// Requests go on while each pod is replaced by another.
fn updated(world: &World) -> Result<()> {
    let kubectl = front(world)?;
    let address = cluster_ip(kubectl)?;
    let before = names(kubectl)?;
    kubectl.ok(&["rollout", "restart", "deployment/front"])?;
    let seconds = format!("--timeout={}s", PATIENCE.as_secs());
    let mut rollout = kubectl
        .command(&["rollout", "status", "deployment/front", &seconds])
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let (mut asked, mut failed) = (0, Vec::new());
    let rolled = loop {
        match http::get_from(address, "/") {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failed.push(format!("{}", answer.status)),
            Err(error) => failed.push(format!("{error:#}")),
        }
        asked += 1;
        if let Some(status) = rollout.try_wait()? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    ensure!(rolled.success(), "the rollout: {rolled}");
    ensure!(
        failed.is_empty(),
        "{} of {asked} requests: {failed:?}",
        failed.len()
    );
    let after = names(kubectl)?;
    ensure!(
        after.iter().any(|name| !before.contains(name)),
        "{before:?} {after:?}"
    );
    Ok(())
}

fn scheduled(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    import(world)?;
    kubectl.ok(&[
        "create",
        "secret",
        "generic",
        "database",
        "--from-literal=password=secret",
    ])?;
    kubectl.ok(&["apply", "-f", &deploy("samples/cronjob.yaml")])?;
    kubectl.ok(&["create", "job", "now", "--from=cronjob/report"])?;
    let seconds = format!("--timeout={}s", PATIENCE.as_secs());
    let complete = kubectl.ok(&["wait", "job/now", "--for=condition=Complete", &seconds]);
    complete.with_context(|| kubectl.ok(&["describe", "pods"]).unwrap_or_default())?;
    let logs = kubectl.ok(&["logs", "job/now"])?;
    ensure!(logs == "--yesterday\n", "{logs:?}");
    kubectl
        .ok(&["delete", "job/now", "cronjob/report", "secret/database"])
        .map(drop)
}

fn sidecar(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    import(world)?;
    let name = "front-with-proxy";
    kubectl.ok(&["apply", "-f", &deploy("samples/sidecar.yaml")])?;
    until_ready(kubectl, name)?;
    let pod = kubectl.get(&["pod", name])?;
    let ip = pod["status"]["podIP"].as_str().context("no address")?;
    let address = format!("{ip}:8080").parse()?;
    let through = "/outbound?url=http://127.0.0.1:15001/index.html";
    let answer = http::get_from(address, through)?;
    ensure!(
        answer.status == 200 && answer.text() == "through the sidecar\n",
        "{answer:?}"
    );
    let around = format!("/outbound?url=http://{ip}:8080/");
    let answer = http::get_from(address, &around)?;
    ensure!(answer.status == 502, "{answer:?}");
    // The sidecar is native, and ends after the component.
    let said = kubectl.ok(&["exec", name, "-c", "proxy", "--", "cat", "/proc/1/comm"])?;
    ensure!(said == "httpd\n", "{said:?}");
    delete(kubectl, name)
}

fn volumes(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    import(world)?;
    kubectl.ok(&["apply", "-f", &deploy("samples/volumes.yaml")])?;
    until_ready(kubectl, "files")?;
    let exec = |words: &[&str]| {
        let all = [&["exec", "files", "--"], words].concat();
        kubectl.run(&all, "")
    };
    let read = |path: &str| -> Result<String> {
        let ended = exec(&["/tour.wasm", "read", path])?;
        ensure!(ended.code == 0, "{path}: {ended:?}");
        Ok(ended.out())
    };
    ensure!(read("/etc/settings/log-level")?.trim() == "debug");
    ensure!(read("/run/keys/api-key")?.trim() == "replace-me");
    let written = exec(&["/tour.wasm", "write", "/data/note", "text"])?;
    ensure!(written.code == 0, "{written:?}");
    ensure!(read("/data/note")?.trim() == "text");
    for path in ["/etc/settings/note", "/run/keys/note", "/note"] {
        let refused = exec(&["/tour.wasm", "write", path, "text"])?;
        ensure!(refused.code != 0, "{path} was written");
    }
    let config = exec(&["/bin/config.wasm"])?;
    ensure!(
        config.out().contains("greeting=hello\n") && config.out().contains("log-level=debug\n"),
        "{config:?}"
    );
    // kubelet swaps the files below a guest that runs.
    let patch = r#"{"data":{"log-level":"info"}}"#;
    kubectl.ok(&["patch", "configmap", "settings", "--patch", patch])?;
    let swapped = wait::until(PATIENCE * 2, || {
        let said = read("/etc/settings/log-level").ok()?;
        (said.trim() == "info").then_some(())
    });
    swapped.with_context(|| events(kubectl, "files"))?;
    delete(kubectl, "files")
}

fn careful(world: &World) -> Result<()> {
    let kubectl = world.installed()?;
    import(world)?;
    kubectl.ok(&["apply", "-f", &deploy("samples/capabilities.yaml")])?;
    // It imports wasi:http/outgoing-handler, which the sample denies.
    let told = wait::until(PATIENCE, || {
        let events = events(kubectl, "careful");
        events.contains("wasi:http/outgoing-handler").then_some(())
    });
    told.with_context(|| events(kubectl, "careful"))?;
    delete(kubectl, "careful")?;
    // Another program may run under the same annotations.
    let cluster = world.cluster()?;
    cluster.import_guest("hello", "example.com/shop/careful:1", &[])?;
    let text = std::fs::read_to_string(deploy("samples/capabilities.yaml"))?;
    let once = text.replace(
        "  runtimeClassName",
        "  restartPolicy: Never\n  runtimeClassName",
    );
    kubectl.take(&["apply", "-f", "-"], &once)?;
    let ended = phase(kubectl, "careful", "Succeeded");
    ended.with_context(|| kubectl.ok(&["logs", "careful"]).unwrap_or_default())?;
    delete(kubectl, "careful")
}
