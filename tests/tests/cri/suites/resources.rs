//! Requests and limits: what cgroups and processes get of them.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use wisp_tests::Version;
use wisp_tests::cri::api::{
    ContainerStatsFilter, LinuxContainerResources, ListContainerStatsRequest,
    ListPodSandboxStatsRequest, PodSandboxStatsFilter, PodSandboxStatsRequest,
};
use wisp_tests::cri::{Container, Test};
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    super::cases(
        "resources",
        &[
            ("limits and requests are in the container's cgroup", limits),
            ("the out-of-memory score is the process's", oom_score),
            ("new limits reach a running container", updated),
            (
                "a guest beyond its memory limit fails, a native container is OOMKilled",
                oom_killed,
            ),
            ("kubelet can ask what a container uses", stats),
            ("kubelet can ask what a pod uses", pod_stats),
        ],
    )
}

/// A file of a container's cgroup, by its name in version 1 and in version 2.
fn cgroup_file(container: &Container<'_, '_, '_>, v1: &str, v2: &str) -> Result<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{}/cgroup", container.pid()?))?;
    let controller = v1.split('.').next().unwrap_or_default();
    for line in table.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|have| have == controller) {
            return Ok(Path::new("/sys/fs/cgroup")
                .join(controllers)
                .join(path)
                .join(v1));
        }
        let unified = Path::new("/sys/fs/cgroup").join(path).join(v2);
        if controllers.is_empty() && unified.exists() {
            return Ok(unified);
        }
    }
    anyhow::bail!("no {v1} or {v2} for {table}")
}

fn read(container: &Container<'_, '_, '_>, v1: &str, v2: &str) -> Result<String> {
    let path = cgroup_file(container, v1, v2)?;
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

const MIB: i64 = 1 << 20;

/// What kubelet makes of limits of half a CPU and 64 MiB, and a request of a
/// quarter of a CPU.
fn half() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 256,
        memory_limit_in_bytes: 64 * MIB,
        ..LinuxContainerResources::default()
    }
}

fn limits(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("limited").run()?;
    for (name, image, args) in [
        ("guest", test.image("tour")?, ["sleep", "600000"]),
        ("native", test.busybox()?, ["sleep", "600"]),
    ] {
        let container = pod
            .container(name, &image)
            .args(&args)
            .resources(half())
            .start()?;
        let memory = read(&container, "memory.limit_in_bytes", "memory.max")?;
        ensure!(memory == (64 * MIB).to_string(), "{name}: {memory}");
        let quota = read(&container, "cpu.cfs_quota_us", "cpu.max")?;
        ensure!(
            quota == "50000" || quota == "50000 100000",
            "{name}: {quota}"
        );
        let shares = read(&container, "cpu.shares", "cpu.weight")?;
        // Version 2 counts from 1 to 10,000 where version 1 has 2 to 262,144.
        ensure!(shares == "256" || shares == "10", "{name}: {shares}");
        container.stop(0)?;
    }
    Ok(())
}

fn oom_score(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("scored").run()?;
    for (name, image, args) in [
        ("guest", test.image("tour")?, ["sleep", "600000"]),
        ("native", test.busybox()?, ["sleep", "600"]),
    ] {
        let container = pod
            .container(name, &image)
            .args(&args)
            .resources(LinuxContainerResources {
                oom_score_adj: 900,
                ..LinuxContainerResources::default()
            })
            .start()?;
        let path = format!("/proc/{}/oom_score_adj", container.pid()?);
        let found = fs::read_to_string(path)?;
        ensure!(found.trim() == "900", "{name}: {found}");
        container.stop(0)?;
    }
    Ok(())
}

fn updated(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("resized").run()?;
    for (name, image, args) in [
        ("guest", test.image("tour")?, ["sleep", "600000"]),
        ("native", test.busybox()?, ["sleep", "600"]),
    ] {
        let container = pod
            .container(name, &image)
            .args(&args)
            .resources(half())
            .start()?;
        container.update(LinuxContainerResources {
            cpu_quota: 80_000,
            memory_limit_in_bytes: 128 * MIB,
            ..half()
        })?;
        let memory = read(&container, "memory.limit_in_bytes", "memory.max")?;
        ensure!(memory == (128 * MIB).to_string(), "{name}: {memory}");
        let quota = read(&container, "cpu.cfs_quota_us", "cpu.max")?;
        ensure!(
            quota == "80000" || quota == "80000 100000",
            "{name}: {quota}"
        );
        container.stop(0)?;
    }
    Ok(())
}

fn oom_killed(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("hungry").run()?;
    let busybox = test.busybox()?;
    let native = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
    for (name, image, args, code, reason) in [
        // Who asks the limiter is refused before the kernel has to kill.
        (
            "command",
            &test.image("tour")?,
            &["hog", "256"][..],
            1,
            "Error",
        ),
        (
            "module",
            &test.image("tour-module")?,
            &["hog", "256"],
            1,
            "Error",
        ),
        ("native", &busybox, &native, 137, "OOMKilled"),
    ] {
        let container = pod
            .container(name, image)
            .args(args)
            .resources(half())
            .start()?;
        let status = container.wait()?;
        ensure!(
            status.exit_code == code && status.reason == reason,
            "{name}: {status:?}"
        );
    }
    ensure!(pod.is_ready()?, "the pod is not ready");
    Ok(())
}

/// Nanoseconds of processor time and bytes of working set.
fn usage(container: &Container<'_, '_, '_>) -> Result<(u64, u64)> {
    let stats = container.stats()?;
    ensure!(
        stats.attributes.is_some_and(|of| of.id == container.id),
        "of another container"
    );
    let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds);
    let memory = stats.memory.and_then(|memory| memory.working_set_bytes);
    Ok((
        cpu.context("no processor time")?.value,
        memory.context("no working set")?.value,
    ))
}

fn stats(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("measured").run()?;
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["spin"])
        .start()?;
    let native = pod
        .container("native", &test.busybox()?)
        .args(&["sh", "-c", "while :; do :; done"])
        .start()?;
    for container in [&guest, &native] {
        let (before, memory) = usage(container)?;
        ensure!(memory > 0, "no memory");
        wait::until(PATIENCE, || {
            let (now, _) = usage(container).ok()?;
            (now > before).then_some(())
        })
        .context("the processor time does not grow")?;
    }
    let request = ListContainerStatsRequest {
        filter: Some(ContainerStatsFilter {
            pod_sandbox_id: pod.id.clone(),
            ..ContainerStatsFilter::default()
        }),
    };
    let answer = test.client().call("ListContainerStats", async |mut to| {
        to.list_container_stats(request).await
    })?;
    let mut found: Vec<String> = answer
        .stats
        .iter()
        .filter(|stats| stats.cpu.is_some() && stats.memory.is_some())
        .filter_map(|stats| Some(stats.attributes.as_ref()?.id.clone()))
        .collect();
    found.sort();
    let mut all = [guest.id.clone(), native.id.clone()];
    all.sort();
    ensure!(found == all, "{found:?}");
    // One that has ended does not disturb the others.
    native.stop(0)?;
    usage(&guest)?;
    guest.stop(0)
}

fn pod_stats(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("measured").run()?;
    let guest = pod.container("guest", &test.image("http-02")?).start()?;
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: pod.id.clone(),
    };
    let answer = test.client().call("PodSandboxStats", async |mut to| {
        to.pod_sandbox_stats(request).await
    });
    let stats = answer?.stats.context("no stats")?;
    let linux = stats.linux.context("nothing of Linux")?;
    ensure!(
        linux
            .cpu
            .is_some_and(|cpu| cpu.usage_core_nano_seconds.is_some()),
        "no processor time"
    );
    ensure!(
        linux
            .memory
            .is_some_and(|memory| memory.working_set_bytes.is_some()),
        "no memory"
    );
    let interface = linux.network.and_then(|network| network.default_interface);
    ensure!(
        interface.is_some_and(|interface| interface.name == "eth0"),
        "no network"
    );
    let ids: Vec<String> = linux
        .containers
        .iter()
        .filter_map(|stats| Some(stats.attributes.as_ref()?.id.clone()))
        .collect();
    ensure!(ids == [guest.id.clone()], "{ids:?}");
    let request = ListPodSandboxStatsRequest {
        filter: Some(PodSandboxStatsFilter {
            id: pod.id.clone(),
            ..PodSandboxStatsFilter::default()
        }),
    };
    let list = test.client().call("ListPodSandboxStats", async |mut to| {
        to.list_pod_sandbox_stats(request).await
    })?;
    ensure!(list.stats.len() == 1, "{} pods", list.stats.len());
    if test.version() != Version::V1_6 {
        let processes = linux.process.and_then(|process| process.process_count);
        ensure!(
            processes.is_some_and(|count| count.value >= 1),
            "no processes"
        );
    }
    guest.stop(10)
}
