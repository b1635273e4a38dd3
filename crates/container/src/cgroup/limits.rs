//! New limits for a container that runs: all of them or none.

use std::io;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{Cgroup, Version};
use crate::error::ContainerError;

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    controller: &'static str,
    file: String,
    value: String,
}

/// Values that the kernel checks against each other at every write, such as a
/// limit with and without swap. Which must be written first depends on whether
/// they grow or shrink, so both orders are tried.
type Group = Vec<Write>;

impl Cgroup {
    /// Sets the limits of `resources` (OCI runtime spec, "Linux resources":
    /// `cpu`, `memory`, `pids`, `unified`) that are there and not zero, as runc
    /// does; the others stay as they are. Should one be refused, all are put
    /// back.
    ///
    /// # Errors
    /// The value that was refused and why.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), ContainerError> {
        let version = Version::of_node();
        let groups = match version {
            Version::V1 => {
                let swap = self.file("memory", "memory.memsw.limit_in_bytes");
                v1(resources, swap.is_ok_and(|file| file.exists()))
            }
            Version::V2 => self.v2(resources),
        }
        .map_err(ContainerError::Limit)?;
        let mut old = Vec::new();
        let written = groups
            .iter()
            .try_for_each(|group| self.write_group(group, &mut old))
            .and_then(|()| self.tell_systemd());
        if written.is_err() {
            self.put_back(old);
        }
        written
    }

    fn write_group(&self, group: &Group, old: &mut Vec<Write>) -> Result<(), ContainerError> {
        let before = old.len();
        let Err(first) = self.write_in_order(group.iter(), old) else {
            return Ok(());
        };
        if group.len() < 2 {
            return Err(first);
        }
        self.put_back(old.split_off(before));
        // The first order's reason is as good as the second's.
        self.write_in_order(group.iter().rev(), old)
            .map_err(|_| first)
    }

    fn write_in_order<'a>(
        &self,
        writes: impl Iterator<Item = &'a Write>,
        old: &mut Vec<Write>,
    ) -> Result<(), ContainerError> {
        for write in writes {
            let refused = |error: io::Error| {
                ContainerError::Limit(format!("{} = {:?}: {error}", write.file, write.value))
            };
            let had = self.read(write.controller, &write.file).map_err(refused)?;
            self.write(write.controller, &write.file, &write.value)
                .map_err(refused)?;
            old.push(Write {
                value: had.trim_end().to_owned(),
                ..write.clone()
            });
        }
        Ok(())
    }

    /// Writes old values again, last first.
    fn put_back(&self, old: Vec<Write>) {
        for write in old.into_iter().rev() {
            if let Err(error) = self.write(write.controller, &write.file, &write.value) {
                log::warn!(
                    "container {}: put {} of {} back: {error}",
                    self.id,
                    write.value,
                    write.file
                );
            }
        }
    }

    fn v2(&self, resources: &LinuxResources) -> Result<Vec<Group>, String> {
        let mut groups = Vec::new();
        if let Some(cpu) = resources.cpu() {
            let now = self.read("cpu", "cpu.max").unwrap_or_default();
            groups.extend(v2_cpu(cpu, &now)?);
        }
        if let Some(memory) = resources.memory() {
            let now = self.read("memory", "memory.max").unwrap_or_default();
            groups.extend(v2_memory(memory, &now)?);
        }
        groups.extend(pids(resources.pids()));
        for (file, value) in resources.unified().iter().flatten() {
            if file.contains('/') || !file.contains('.') {
                return Err(format!(
                    "unified: {file:?} is not the name of a cgroup file"
                ));
            }
            groups.push(vec![set("unified", file, value)]);
        }
        Ok(groups)
    }
}

fn set(controller: &'static str, file: &str, value: impl ToString) -> Write {
    Write {
        controller,
        file: file.to_owned(),
        value: value.to_string(),
    }
}

/// Zero means: leave it.
fn given<T: Default + PartialEq>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

fn text(value: Option<&String>) -> Option<&String> {
    value.filter(|text| !text.is_empty())
}

fn v1(resources: &LinuxResources, counts_swap: bool) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    if let Some(cpu) = resources.cpu() {
        let mut one = |file, value: Option<String>| {
            groups.extend(value.map(|value| vec![set("cpu", file, value)]));
        };
        one("cpu.shares", given(cpu.shares()).map(|v| v.to_string()));
        one(
            "cpu.cfs_burst_us",
            given(cpu.burst()).map(|v| v.to_string()),
        );
        one("cpu.idle", given(cpu.idle()).map(|v| v.to_string()));
        let mut pair = Vec::new();
        pair.extend(given(cpu.period()).map(|v| set("cpu", "cpu.cfs_period_us", v)));
        pair.extend(given(cpu.quota()).map(|v| set("cpu", "cpu.cfs_quota_us", v)));
        groups.push(pair);
        let mut pair = Vec::new();
        pair.extend(given(cpu.realtime_period()).map(|v| set("cpu", "cpu.rt_period_us", v)));
        pair.extend(given(cpu.realtime_runtime()).map(|v| set("cpu", "cpu.rt_runtime_us", v)));
        groups.push(pair);
        groups.extend(cpuset(cpu));
    }
    if let Some(memory) = resources.memory() {
        let limit = given(memory.limit());
        // Without a limit of memory there is none of both together.
        let swap = given(memory.swap()).or(limit.filter(|limit| *limit == -1 && counts_swap));
        check_swap(limit, swap)?;
        let mut pair = Vec::new();
        pair.extend(limit.map(|v| set("memory", "memory.limit_in_bytes", v)));
        pair.extend(swap.map(|v| set("memory", "memory.memsw.limit_in_bytes", v)));
        groups.push(pair);
        let soft = given(memory.reservation());
        groups.extend(soft.map(|v| vec![set("memory", "memory.soft_limit_in_bytes", v)]));
    }
    groups.extend(pids(resources.pids()));
    Ok(groups)
}

fn cpuset(cpu: &LinuxCpu) -> Vec<Group> {
    let mut groups = Vec::new();
    groups.extend(text(cpu.cpus().as_ref()).map(|v| vec![set("cpuset", "cpuset.cpus", v)]));
    groups.extend(text(cpu.mems().as_ref()).map(|v| vec![set("cpuset", "cpuset.mems", v)]));
    groups
}

fn pids(pids: &Option<LinuxPids>) -> Option<Group> {
    let limit = given(pids.as_ref().map(LinuxPids::limit))?;
    let value = if limit < 0 {
        "max".into()
    } else {
        limit.to_string()
    };
    Some(vec![set("pids", "pids.max", value)])
}

fn check_swap(limit: Option<i64>, swap: Option<i64>) -> Result<(), String> {
    match (limit, swap) {
        (Some(limit), Some(swap)) if swap >= 0 && (limit < 0 || swap < limit) => Err(format!(
            "memory.swap = {swap}: is memory and swap together, so not less than \
             memory.limit = {limit}"
        )),
        _ => Ok(()),
    }
}

fn v2_cpu(cpu: &LinuxCpu, now: &str) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    if let Some(shares) = given(cpu.shares()) {
        groups.push(vec![set("cpu", "cpu.weight", weight(shares))]);
    }
    if cpu.realtime_period().is_some() || given(cpu.realtime_runtime()).is_some() {
        return Err("cpu.realtimeRuntime: cgroup v2 has no realtime limits".into());
    }
    let (quota, period) = (given(cpu.quota()), given(cpu.period()));
    if quota.is_some() || period.is_some() {
        let mut now = now.split_whitespace();
        let quota = match quota {
            Some(quota) if quota < 0 => "max".to_owned(),
            Some(quota) => quota.to_string(),
            None => now.next().unwrap_or("max").to_owned(),
        };
        let period = match period {
            Some(period) => period.to_string(),
            None => now.next_back().unwrap_or("100000").to_owned(),
        };
        groups.push(vec![set("cpu", "cpu.max", format!("{quota} {period}"))]);
    }
    groups.extend(given(cpu.burst()).map(|v| vec![set("cpu", "cpu.max.burst", v)]));
    groups.extend(given(cpu.idle()).map(|v| vec![set("cpu", "cpu.idle", v)]));
    groups.extend(cpuset(cpu));
    Ok(groups)
}

fn v2_memory(memory: &LinuxMemory, now: &str) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    let limit = given(memory.limit());
    let swap = given(memory.swap());
    check_swap(limit, swap)?;
    let bytes = |value: i64| match value {
        ..0 => "max".to_owned(),
        value => value.to_string(),
    };
    // Version 1 limits memory and swap together, version 2 swap alone.
    let swap = match swap {
        Some(swap) if swap >= 0 => {
            let limit = limit.or_else(|| now.trim().parse().ok()).ok_or_else(|| {
                format!("memory.swap = {swap}: needs a memory limit, too, on cgroup v2")
            })?;
            check_swap(Some(limit), Some(swap))?;
            Some(swap - limit)
        }
        Some(_) => Some(-1),
        None => limit.filter(|limit| *limit < 0),
    };
    groups.extend(swap.map(|v| vec![set("memory", "memory.swap.max", bytes(v))]));
    groups.extend(limit.map(|v| vec![set("memory", "memory.max", bytes(v))]));
    let low = given(memory.reservation());
    groups.extend(low.map(|v| vec![set("memory", "memory.low", bytes(v))]));
    Ok(groups)
}

/// Version 1's shares (2 to 262144, usually 1024) as version 2's weight (1 to
/// 10000, usually 100): the curve that runc 1.3.2 introduced and that creating
/// a container uses, which meets all three pairs.
fn weight(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).expect("resources")
    }

    fn shown(groups: &[Group]) -> Vec<String> {
        groups
            .iter()
            .flatten()
            .map(|write| format!("{}={}", write.file, write.value))
            .collect()
    }

    #[test]
    fn only_what_is_given_and_not_zero_is_set() {
        let groups = v1(
            &resources(
                r#"{"cpu":{"shares":0,"quota":50000,"period":100000},
                "memory":{"limit":67108864},"pids":{"limit":-1}}"#,
            ),
            true,
        )
        .expect("plan");
        assert_eq!(
            shown(&groups),
            [
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=67108864",
                "pids.max=max"
            ]
        );
        assert_eq!(shown(&v1(&resources("{}"), true).expect("plan")), [""; 0]);
    }

    #[test]
    fn version_2_keeps_the_half_of_cpu_max_that_is_not_given() {
        let cpu = |json: &str, now| {
            let resources = resources(json);
            shown(&v2_cpu(resources.cpu().as_ref().expect("cpu"), now).expect("plan"))
        };
        assert_eq!(
            cpu(r#"{"cpu":{"quota":20000}}"#, "max 50000\n"),
            ["cpu.max=20000 50000"]
        );
        assert_eq!(
            cpu(r#"{"cpu":{"period":20000}}"#, "7000 50000\n"),
            ["cpu.max=7000 20000"]
        );
        assert_eq!(
            cpu(r#"{"cpu":{"quota":-1,"shares":1024}}"#, "7000 50000\n"),
            ["cpu.weight=100", "cpu.max=max 50000"]
        );
    }

    #[test]
    fn version_2_limits_swap_alone() {
        let memory = |json: &str, now| {
            let resources = resources(json);
            v2_memory(resources.memory().as_ref().expect("memory"), now).map(|g| shown(&g))
        };
        assert_eq!(
            memory(r#"{"memory":{"limit":100,"swap":150}}"#, "max\n"),
            Ok(vec!["memory.swap.max=50".into(), "memory.max=100".into()])
        );
        assert_eq!(
            memory(r#"{"memory":{"swap":150}}"#, "100\n"),
            Ok(vec!["memory.swap.max=50".into()])
        );
        assert!(memory(r#"{"memory":{"swap":150}}"#, "max\n").is_err());
        assert!(memory(r#"{"memory":{"limit":100,"swap":50}}"#, "max\n").is_err());
    }

    #[test]
    fn weights_meet_the_ends_and_the_default() {
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 100, 10_000]);
        assert_eq!([weight(1), weight(u64::MAX)], [1, 10_000]);
    }
}
