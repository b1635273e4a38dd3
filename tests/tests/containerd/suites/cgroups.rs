//! Limits that the kernel keeps, by the cgroup version this machine has.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use wisp_tests::Test;
use wisp_tests::cgroups;
use wisp_tests::run::Running;
use wisp_tests::wait::PATIENCE;

pub fn cases() -> Vec<Case> {
    super::cases(
        "cgroups",
        &[
            (
                "the limits of a native container are in its cgroup",
                native_limits,
            ),
            ("the limits of a guest are in its cgroup", wasm_limits),
            (
                "a container that takes more memory than it may is killed",
                memory_bites,
            ),
            (
                "a container cannot have more processes than it may",
                pids_bite,
            ),
            (
                "a native container reads no device but those it was given",
                devices_bite,
            ),
        ],
    )
}

/// Limits as kubelet sets them for `cpu: 500m` and `memory: 64Mi`.
pub fn limits() -> Value {
    json!({
        "memory": { "limit": 64 << 20 },
        "cpu": { "quota": 50_000, "period": 100_000, "shares": 512 },
        "pids": { "limit": 33 },
    })
}

/// What the kernel has made of [`limits`] in the cgroup of process `pid`.
pub fn limits_hold(pid: u32) -> Result<()> {
    let expected: &[(&str, &str, &str)] = if cgroups::unified() {
        &[
            ("memory", "memory.max", "67108864"),
            ("cpu", "cpu.max", "50000 100000"),
            // Not more than this fits the shares; the mapping is the runtime's.
            ("pids", "pids.max", "33"),
        ]
    } else {
        &[
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpu", "cpu.cfs_period_us", "100000"),
            ("cpu", "cpu.shares", "512"),
            ("pids", "pids.max", "33"),
        ]
    };
    for (controller, file, value) in expected {
        let path = cgroups::of(pid, controller)?.join(file);
        let found = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(
            found.trim() == *value,
            "{}: {found:?} is not {value}",
            path.display()
        );
    }
    if cgroups::unified() {
        let path = cgroups::of(pid, "cpu")?.join("cpu.weight");
        let weight: u32 = fs::read_to_string(&path)?.trim().parse()?;
        ensure!((15..=70).contains(&weight), "512 shares became {weight}");
    }
    Ok(())
}

fn native_limits(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = test
        .run(&image)
        .args(&["sleep", "1000"])
        .create_with(|spec| spec["linux"]["resources"] = limits())?;
    has_limits(test, Running::start(test, &id)?)
}

fn wasm_limits(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test
        .run(&image)
        .args(&["sleep", "1000000"])
        .create_with(|spec| spec["linux"]["resources"] = limits())?;
    let running = Running::start(test, &id)?;
    running.stdout.until("sleeping", PATIENCE)?;
    has_limits(test, running)
}

fn has_limits(test: &Test<'_>, running: Running<'_, '_>) -> Result<()> {
    limits_hold(running.pid)?;
    let group: PathBuf = cgroups::of(running.pid, "memory")?;
    let expected = format!("/{}/{}", test.namespace(), running.id);
    ensure!(
        group.to_string_lossy().ends_with(&expected),
        "{} is not {expected}",
        group.display()
    );
    running.end_by(Signal::SIGKILL)?;
    ensure!(!group.exists(), "{} is still there", group.display());
    Ok(())
}

/// A program that takes more memory than 16 MiB, and ends with 0 if it may.
pub const GREEDY: [&str; 3] = ["sh", "-c", "head -c 64m /dev/zero | tail -c 48m | wc -c"];

fn memory_bites(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let ended = test.run(&image).args(&GREEDY).ctr()?;
    ensure!(
        ended.code == 0 && ended.out() == "50331648\n",
        "without a limit: {ended:?}"
    );
    let id = test.run(&image).args(&GREEDY).create_with(|spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    })?;
    let ended = Running::start(test, &id)?.finish()?;
    // Which of the processes the kernel kills is its choice.
    ensure!(ended.out() != "50331648\n", "nobody was killed: {ended:?}");
    Ok(())
}

fn pids_bite(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = "for n in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all";
    let id = test
        .run(&image)
        .args(&["sh", "-c", script])
        .create_with(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 5 }))?;
    let ended = Running::start(test, &id)?.finish()?;
    ensure!(ended.out().is_empty() && ended.code != 0, "{ended:?}");
    Ok(())
}

fn devices_bite(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = test
        .run(&image)
        .args(&["sh", "-c", &other_devices()?])
        .create()?;
    reads_no_other_device(Running::start(test, &id)?)
}

/// A script that makes two device files and reads them: one that every
/// container is given, and a disk of this machine.
pub fn other_devices() -> Result<String> {
    let disk = fs::read_dir("/sys/block")?
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("dev")).ok())
        .next()
        .context("this machine has no disk")?;
    let (major, minor) = disk.trim().split_once(':').context("a disk's numbers")?;
    Ok(format!(
        "cd /tmp && mknod zero c 1 5 && head -c 4 zero | wc -c && \
         mknod disk b {major} {minor} && head -c 1 disk | wc -c"
    ))
}

/// What [`other_devices`] has to end with.
pub fn reads_no_other_device(running: Running<'_, '_>) -> Result<()> {
    let ended = running.finish()?;
    let lines: Vec<String> = ended.out().lines().map(str::to_owned).collect();
    ensure!(
        lines.first().is_some_and(|line| line == "4"),
        "not even /dev/zero could be read: {ended:?}"
    );
    // Making the file is refused, or else opening it.
    ensure!(
        lines.get(1).is_none_or(|line| line == "0")
            && ended.err().contains("Operation not permitted"),
        "a disk could be read: {ended:?}"
    );
    Ok(())
}
