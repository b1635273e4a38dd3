//! What a container uses and may use: Stats, Update, OOM.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use prost::Message;
use serde_json::{Value, json};
use std::fs;
use wisp_tests::events::Events;
use wisp_tests::run::{RUNC, Running, WISP};
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, api, leaks};

pub fn cases() -> Vec<Case> {
    super::cases(
        "limits",
        &[
            (
                "a guest's use of cpu, memory and processes is told",
                metrics,
            ),
            ("the metrics have what runc's shim tells", like_runc),
            (
                "ctr shows the metrics, also of a task that has ended",
                by_ctr,
            ),
            (
                "a native child beyond the limit is reported as OOM",
                oom_of_a_child,
            ),
            ("new limits reach the cgroup of a running guest", updated),
            ("a limit raised before Start lets a guest take more", raised),
            ("a limit that is refused changes none", refused),
        ],
    )
}

/// A file of a container's cgroup, by its names in both versions.
fn cgroup_file(test: &Test<'_>, id: &str, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let groups = leaks::cgroups(test.namespace());
    let own: Vec<_> = groups.iter().filter(|path| path.ends_with(id)).collect();
    let found = own
        .iter()
        .map(|path| (path, path.join(v1)))
        .filter(|(path, _)| path.to_string_lossy().contains(controller))
        .map(|(_, file)| file)
        .chain(own.iter().map(|path| path.join(v2)))
        .find(|file| file.exists())
        .with_context(|| format!("no {v1} or {v2} of {id} in {own:?}"))?;
    Ok(fs::read_to_string(found)?.trim().to_owned())
}

/// Field numbers of the messages below are those of both versions' `Metrics`.
#[derive(Clone, PartialEq, Message)]
struct Measured {
    #[prost(message, optional, tag = "2")]
    second: Option<Pair>,
    #[prost(message, optional, tag = "3")]
    third: Option<Cpu1>,
    #[prost(message, optional, tag = "4")]
    memory: Option<Memory>,
}

/// Version 2's `CPUStat` has its total here.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(uint64, tag = "1")]
    first: u64,
}

/// Version 1's `CPUStat`.
#[derive(Clone, PartialEq, Message)]
struct Cpu1 {
    #[prost(message, optional, tag = "1")]
    usage: Option<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Memory {
    /// Version 2's usage.
    #[prost(uint64, tag = "32")]
    usage2: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MeasuredMemory1 {
    #[prost(message, optional, tag = "4")]
    memory: Option<Memory1>,
}

#[derive(Clone, PartialEq, Message)]
struct Memory1 {
    #[prost(message, optional, tag = "33")]
    usage: Option<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "1")]
    limit: u64,
    #[prost(uint64, tag = "2")]
    usage: u64,
}

/// What both versions tell: processor time (in their units), memory in bytes.
fn measure(test: &Test<'_>, id: &str) -> Result<(u64, u64)> {
    let any = test.api()?.metrics(id)?;
    let bytes = any.value.as_slice();
    if any.type_url.ends_with("io.containerd.cgroups.v2.Metrics") {
        let found = Measured::decode(bytes)?;
        let memory = found.memory.map_or(0, |memory| memory.usage2);
        return Ok((found.second.map_or(0, |cpu| cpu.first), memory));
    }
    ensure!(
        any.type_url.ends_with("io.containerd.cgroups.v1.Metrics"),
        "{}",
        any.type_url
    );
    #[derive(Clone, PartialEq, Message)]
    struct Cpu {
        #[prost(message, optional, tag = "3")]
        cpu: Option<Cpu1>,
    }
    let cpu = Cpu::decode(bytes)?.cpu.and_then(|cpu| cpu.usage);
    let memory = MeasuredMemory1::decode(bytes)?.memory;
    let memory = memory.and_then(|memory| memory.usage);
    Ok((
        cpu.map_or(0, |usage| usage.first),
        memory.map_or(0, |entry| entry.usage),
    ))
}

fn metrics(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["spin"]).start()?;
    let (before, memory) = wait::until(PATIENCE, || {
        measure(test, &running.id).ok().filter(|(cpu, _)| *cpu > 0)
    })
    .context("no processor time")?;
    ensure!(memory > 0, "no memory");
    wait::until(PATIENCE, || {
        measure(test, &running.id)
            .ok()
            .filter(|(cpu, _)| *cpu > before)
    })
    .context("the processor time does not grow")?;
    running.end_by(Signal::SIGKILL).map(drop)
}

/// The numbers of the fields of a message that are there, with those of the
/// messages inside.
fn fields(mut bytes: &[u8], depth: usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (key, wire) = prost::encoding::decode_key(&mut bytes)?;
        found.push(key.to_string());
        if wire == prost::encoding::WireType::LengthDelimited {
            let length = usize::try_from(prost::encoding::decode_varint(&mut bytes)?)?;
            let inner = bytes.get(..length).context("truncated")?;
            bytes = &bytes[length..];
            if depth > 0
                && let Ok(more) = fields(inner, depth - 1)
            {
                found.extend(more.iter().map(|field| format!("{key}.{field}")));
            }
        } else {
            prost::encoding::skip_field(wire, key, &mut bytes, Default::default())?;
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn like_runc(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let mut told = Vec::new();
    for runtime in [RUNC, WISP] {
        // Limits and children, so that all counters have something to count.
        let running = test
            .run(&image)
            .runtime(runtime)
            .flags(&["--memory-limit", "67108864", "--cpu-quota", "50000"])
            .args(&[
                "sh",
                "-c",
                "dd if=/bin/busybox of=/dev/null; echo up; sleep 1000",
            ])
            .start()?;
        running.stdout.until("up", PATIENCE)?;
        let any = test.api()?.metrics(&running.id)?;
        told.push((any.type_url.clone(), fields(&any.value, 2)?));
        running.end_by(Signal::SIGKILL)?;
    }
    ensure!(told[0].0 == told[1].0, "{} and {}", told[0].0, told[1].0);
    // Counters that are 0 are not sent; which are depends on luck. What counts
    // is that no part is missing.
    let parts = |fields: &[String]| -> Vec<String> {
        let deep = |field: &&String| fields.iter().any(|f| f.starts_with(&format!("{field}.")));
        fields.iter().filter(deep).cloned().collect()
    };
    let missing: Vec<_> = parts(&told[0].1)
        .into_iter()
        .filter(|field| !told[1].1.contains(field))
        .collect();
    ensure!(missing.is_empty(), "missing {missing:?}: {told:#?}");
    Ok(())
}

fn by_ctr(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    for _ in 0..2 {
        let table = test.ctr_ok(&["task", "metrics", &running.id])?.out();
        for name in ["memory.usage", "pids.current"] {
            ensure!(table.contains(name), "no {name} in {table}");
        }
        if test.api()?.state(&running.id)?.2 == 0 {
            running.kill(Signal::SIGTERM)?;
            running.wait()?;
        }
    }
    ensure!(running.finish()?.code == 143, "not 143");
    Ok(())
}

fn until_oom(test: &Test<'_>, id: &str, events: &Events, code: u32) -> Result<()> {
    let seen = events.until_deleted(id)?;
    let topics: Vec<_> = seen.iter().map(|event| event.topic.as_str()).collect();
    let oom = topics.iter().position(|topic| *topic == "/tasks/oom");
    let exit = topics.iter().position(|topic| *topic == "/tasks/exit");
    ensure!(
        oom.is_some() && oom < exit,
        "no OOM before the exit: {seen:#?}"
    );
    ensure!(
        seen.iter().any(|event| event.exit == Some(code)),
        "not {code}: {seen:#?} in {}",
        test.namespace()
    );
    Ok(())
}

fn oom_of_a_child(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let events = Events::subscribe(test.node, test.namespace())?;
    let running = test
        .run(&image)
        .flags(&["--memory-limit", "33554432"])
        // What dd holds is one block; its parent survives it.
        .args(&[
            "sh",
            "-c",
            "dd if=/dev/zero of=/dev/null bs=256M count=1; exit 5",
        ])
        .start()?;
    let id = running.id.clone();
    ensure!(running.finish()?.code == 5, "not the shell's own end");
    until_oom(test, &id, &events, 5)
}

fn updated(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let id = running.id.clone();
    test.api()?.update(
        &id,
        &json!({
            "cpu": { "shares": 512, "quota": 50000, "period": 100000 },
            "memory": { "limit": 268_435_456 },
            "pids": { "limit": 77 },
        }),
    )?;
    let read = |controller, v1, v2| cgroup_file(test, &id, controller, v1, v2);
    ensure!(read("memory", "memory.limit_in_bytes", "memory.max")? == "268435456");
    ensure!(read("pids", "pids.max", "pids.max")? == "77");
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max")?;
    ensure!(quota == "50000" || quota == "50000 100000", "{quota}");
    let shares = read("cpu", "cpu.shares", "cpu.weight")?;
    ensure!(shares == "512" || shares == "59", "{shares}");
    // One limit alone leaves the others.
    test.api()?
        .update(&id, &json!({ "pids": { "limit": 78 } }))?;
    ensure!(read("pids", "pids.max", "pids.max")? == "78");
    ensure!(read("memory", "memory.limit_in_bytes", "memory.max")? == "268435456");
    ensure!(running.end_by(Signal::SIGTERM)?.code == 143, "not 143");
    Ok(())
}

fn raised(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test
        .run(&image)
        .flags(&["--memory-limit", "33554432"])
        .args(&["hog", "128"])
        .create()?;
    let streams = api::Streams::default();
    test.api()?.create(&id, &streams)?;
    test.api()?
        .update(&id, &json!({ "memory": { "limit": 536_870_912 } }))?;
    test.api()?.start(&id)?;
    ensure!(test.api()?.wait(&id)? == 0, "the limit was not raised");
    test.api()?.delete(&id)?;
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn refused(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running: Running<'_, '_> = test
        .run(&image)
        .flags(&["--memory-limit", "67108864"])
        .args(&["sleep", "1000"])
        .start()?;
    let id = running.id.clone();
    let read = |controller, v1, v2| cgroup_file(test, &id, controller, v1, v2);
    let look = || -> Result<Vec<String>> {
        Ok(vec![
            read("memory", "memory.limit_in_bytes", "memory.max")?,
            read("pids", "pids.max", "pids.max")?,
            read("cpu", "cpu.cfs_quota_us", "cpu.max")?,
        ])
    };
    let before = look()?;
    let bad: [Value; 3] = [
        // The kernel takes the quota and refuses the processors.
        json!({ "cpu": { "quota": 70000, "period": 100000, "cpus": "4000-5000" } }),
        json!({ "pids": { "limit": 9 }, "cpu": { "quota": 1, "period": 100000 } }),
        json!({ "memory": { "limit": 134_217_728, "swap": 1 } }),
    ];
    for resources in bad {
        let answer = test.api()?.update(&id, &resources);
        ensure!(answer.is_err(), "{resources} was taken");
        ensure!(
            look()? == before,
            "{resources} changed {before:?} to {:?}",
            look()?
        );
    }
    ensure!(test.api()?.update_raw(&id, b"not json".to_vec()).is_err());
    running.end_by(Signal::SIGKILL).map(drop)
}
