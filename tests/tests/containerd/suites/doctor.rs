//! `wisp doctor` on nodes that are well, and on such that are not.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use wisp_tests::{Containerd, Test, Version, cgroups, leaks, paths, processes};

pub fn cases() -> Vec<Case> {
    super::cases(
        "doctor",
        &[
            ("a node that is well is said to be", healthy),
            (
                "what a configuration lacks is said, with the way out",
                lacking,
            ),
            ("a shim of another version is found out", other_shim),
            ("a containerd that is not there is said to be", unreachable),
            (
                "settings that are invalid are named with their line",
                bad_settings,
            ),
            (
                "a program that cannot run is said so, and nothing of it is left",
                cannot_run,
            ),
            (
                "what a doctor that was killed has left is removed by the next",
                killed,
            ),
        ],
    )
}

/// A containerd's configuration with the runtime tables that are given.
fn configuration(version: Version, dir: &Path, runtime: &str) -> String {
    let (schema, plugin) = match version {
        Version::V1_6 => (2, "io.containerd.grpc.v1.cri"),
        Version::V2_1 => (3, "io.containerd.cri.v1.runtime"),
    };
    let runtime = match runtime {
        "" => String::new(),
        more => format!("[plugins.\"{plugin}\".containerd.runtimes.wisp]\n{more}\n"),
    };
    let dir = dir.display();
    format!(
        r#"version = {schema}
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs",
]

[grpc]
address = "{dir}/c.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true

{runtime}"#
    )
}

const WELL: &str = r#"runtime_type = "io.containerd.wisp.v1"
pod_annotations = ["io.wisp.*"]"#;

/// A containerd that is well.
fn node(test: &Test<'_>) -> Result<Containerd> {
    let version = test.node.version();
    Containerd::start_with(version, |dir| Ok(configuration(version, dir, WELL)))
}

/// What a doctor has said.
struct Report {
    code: Option<i32>,
    pid: u32,
    findings: Vec<Value>,
}

impl Report {
    /// The finding of a check.
    fn of(&self, check: &str) -> Result<(&str, String, String)> {
        let found = self
            .findings
            .iter()
            .find(|finding| finding["check"] == check)
            .with_context(|| format!("no {check}: {:#?}", self.findings))?;
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        let status = found["status"].as_str().unwrap_or_default();
        Ok((status, text("found"), text("remedy")))
    }

    /// Those that have failed.
    fn failed(&self) -> Vec<&str> {
        self.findings
            .iter()
            .filter(|finding| finding["status"] == "failed")
            .filter_map(|finding| finding["check"].as_str())
            .collect()
    }
}

fn begin(node: &Containerd, args: &[&str]) -> Result<Child> {
    let mut wisp = Command::new(paths::wisp());
    wisp.arg("doctor")
        .arg("--address")
        .arg(node.socket())
        .args(["--json", "--kubelet-config", "/nonexistent"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(wisp.spawn()?)
}

fn doctor(node: &Containerd, args: &[&str]) -> Result<Report> {
    let child = begin(node, args)?;
    let pid = child.id();
    let ended = child.wait_with_output()?;
    let document: Value = serde_json::from_slice(&ended.stdout)
        .with_context(|| String::from_utf8_lossy(&ended.stderr).into_owned())?;
    let report = Report {
        code: ended.status.code(),
        pid,
        findings: document["findings"].as_array().cloned().unwrap_or_default(),
    };
    let failed = report.failed();
    ensure!(
        report.code == Some(i32::from(!failed.is_empty())) && document["ok"] == failed.is_empty(),
        "exited {:?} with {failed:?}",
        report.code
    );
    Ok(report)
}

/// That nothing is left of the program that a doctor has run.
fn nothing_left(node: &Containerd, report: &Report) -> Result<()> {
    let mut ctr = node.ctr("");
    let namespaces = ctr.args(["namespace", "ls", "-q"]).output()?.stdout;
    let namespaces = String::from_utf8_lossy(&namespaces).into_owned();
    ensure!(!namespaces.contains("wisp-doctor"), "{namespaces}");
    let name = format!("wisp-doctor-{}", report.pid);
    let mut hierarchies = leaks::children(Path::new(cgroups::MOUNT));
    hierarchies.push(cgroups::MOUNT.into());
    for hierarchy in hierarchies {
        ensure!(!hierarchy.join(&name).exists(), "{name} is left");
    }
    let dir = node.dir().display().to_string();
    let shims: Vec<_> = wisp_tests::wait::until(leaks::GONE, || {
        processes::concerning(&dir)
            .into_iter()
            .all(|process| !process.line.contains("wisp-doctor"))
            .then_some(Vec::<String>::new())
    })
    .context("a shim is left")?;
    ensure!(shims.is_empty());
    ensure!(
        !leaks::mounts()
            .iter()
            .any(|mount| mount.contains("wisp-doctor") && mount.contains(&dir)),
        "a mount is left"
    );
    let socket = leaks::socket(node, "wisp-doctor", "wisp-doctor");
    ensure!(!socket.exists(), "{} is left", socket.display());
    for base in [node.state(), node.root()] {
        let bundles = base.join("io.containerd.runtime.v2.task/wisp-doctor");
        ensure!(leaks::children(&bundles).is_empty(), "a bundle is left");
    }
    // What is in the directories of all namespaces: nothing else was there.
    let blobs = leaks::children(
        &node
            .root()
            .join("io.containerd.content.v1.content/blobs/sha256"),
    );
    let snapshots = leaks::children(
        &node
            .root()
            .join("io.containerd.snapshotter.v1.overlayfs/snapshots"),
    );
    let cleared = wisp_tests::wait::until(leaks::GONE, || {
        (blobs.iter().all(|path| !path.exists()) && snapshots.iter().all(|path| !path.exists()))
            .then_some(())
    });
    cleared.with_context(|| format!("left: {blobs:?} {snapshots:?}"))
}

fn healthy(test: &Test<'_>) -> Result<()> {
    let node = node(test)?;
    let report = doctor(&node, &[])?;
    ensure!(report.failed().is_empty(), "{:#?}", report.findings);
    for check in [
        "kernel",
        "seccomp",
        "overlayfs",
        "containerd",
        "configuration",
        "shim",
        "settings",
        "cache",
        "hello",
    ] {
        let (status, found, _) = report.of(check)?;
        ensure!(status == "ok", "{check}: {found}");
    }
    let (_, found, _) = report.of("containerd")?;
    ensure!(
        found.contains(&test.node.version().to_string())
            && found.contains(&format!("process {}", node.pid())),
        "{found}"
    );
    let (_, found, _) = report.of("settings")?;
    ensure!(
        found.contains(&node.settings().display().to_string()),
        "{found}"
    );
    nothing_left(&node, &report)?;

    // For people it is a line each.
    let mut wisp = Command::new(paths::wisp());
    let said = wisp
        .args([
            "doctor",
            "--no-run",
            "--kubelet-config",
            "/nonexistent",
            "--address",
        ])
        .arg(node.socket())
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.status.success() && !text.contains("hello"), "{text}");
    ensure!(
        text.lines()
            .any(|line| line.starts_with("ok") && line.contains("containerd")),
        "{text}"
    );
    Ok(())
}

fn lacking(test: &Test<'_>) -> Result<()> {
    let node = node(test)?;
    let version = node.version();
    let file = node.dir().join("config.toml");
    let with = |runtime: &str| -> Result<Report> {
        fs::write(&file, configuration(version, node.dir(), runtime))?;
        doctor(&node, &["--no-run"])
    };
    let report = with("")?;
    ensure!(
        report.failed() == ["configuration"],
        "{:#?}",
        report.findings
    );
    let (_, found, remedy) = report.of("configuration")?;
    ensure!(found.contains("no runtime of type"), "{found}");
    // What it says can be pasted.
    let (_, snippet) = remedy.split_once(":\n").context("no snippet")?;
    fs::write(&file, configuration(version, node.dir(), "") + snippet)?;
    ensure!(doctor(&node, &["--no-run"])?.of("configuration")?.0 == "ok");

    let report = with(r#"runtime_type = "io.containerd.wisp.v1""#)?;
    ensure!(
        report.failed() == ["configuration"],
        "{:#?}",
        report.findings
    );
    let (_, found, remedy) = report.of("configuration")?;
    ensure!(
        found.contains("annotations") && remedy.contains("io.wisp.*"),
        "{found}: {remedy}"
    );
    let report = with(r#"runtime_type = "io.containerd.runc.v2""#)?;
    ensure!(report.of("configuration")?.1.contains("of type"));
    Ok(())
}

fn other_shim(test: &Test<'_>) -> Result<()> {
    let node = node(test)?;
    let shim = test.file("shim", "#!/bin/sh\necho '  Version: 0.0.1'\n")?;
    let runtime = format!("{WELL}\nruntime_path = {shim:?}");
    let text = configuration(node.version(), node.dir(), &runtime);
    fs::write(node.dir().join("config.toml"), text)?;
    let report = doctor(&node, &[])?;
    ensure!(report.failed() == ["shim"], "{:#?}", report.findings);
    ensure!(report.of("shim")?.1.contains("cannot be executed"));
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
    let report = doctor(&node, &[])?;
    let (status, found, _) = report.of("shim")?;
    ensure!(status == "failed" && found.contains("0.0.1"), "{found}");
    fs::remove_file(&shim)?;
    let report = doctor(&node, &[])?;
    ensure!(report.of("shim")?.1.contains("is not there"));
    nothing_left(&node, &report)
}

fn unreachable(test: &Test<'_>) -> Result<()> {
    let said = Command::new(paths::wisp())
        .args(["doctor", "--json", "--address"])
        .arg(test.dir().join("no.sock"))
        .output()?;
    let document: Value = serde_json::from_slice(&said.stdout)?;
    ensure!(said.status.code() == Some(1), "{document:#}");
    let failed = document["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|finding| finding["check"] == "containerd")
        .context("nothing about containerd")?;
    let found = failed["found"].as_str().unwrap_or_default();
    ensure!(found.contains("no.sock"), "{found}");
    ensure!(
        failed["remedy"]
            .as_str()
            .unwrap_or_default()
            .contains("--address")
    );
    Ok(())
}

fn bad_settings(test: &Test<'_>) -> Result<()> {
    let node = node(test)?;
    let bad = test.file("bad.toml", "[cache]\nmax_size = 7\n")?;
    let report = doctor(&node, &["--no-run", "--config", &bad.display().to_string()])?;
    ensure!(report.failed() == ["settings"], "{:#?}", report.findings);
    let (_, found, _) = report.of("settings")?;
    ensure!(
        found.contains("bad.toml") && found.contains("line 2"),
        "{found}"
    );
    Ok(())
}

fn cannot_run(test: &Test<'_>) -> Result<()> {
    let node = node(test)?;
    // No container is created with it.
    fs::write(node.settings(), "[nonsense]\n")?;
    let good = test.file("good.toml", "")?;
    let report = doctor(&node, &["--config", &good.display().to_string()])?;
    ensure!(report.failed() == ["hello"], "{:#?}", report.findings);
    let (_, found, _) = report.of("hello")?;
    ensure!(found.contains("nonsense"), "{found}");
    nothing_left(&node, &report)
}

fn killed(test: &Test<'_>) -> Result<()> {
    let node = node(test)?;
    for milliseconds in [30, 60, 100, 150, 250] {
        let mut child = begin(&node, &[])?;
        // Wherever it is then: there is no bad moment.
        thread::sleep(Duration::from_millis(milliseconds));
        let _ = kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL);
        child.wait()?;
    }
    let report = doctor(&node, &[])?;
    ensure!(report.failed().is_empty(), "{:#?}", report.findings);
    nothing_left(&node, &report)
}
