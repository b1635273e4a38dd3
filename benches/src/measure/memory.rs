//! What idle containers weigh.

use crate::api::Template;
use crate::bench::{Bench, turned};
use crate::contestants::Job;
use crate::results::{Results, Unit};
use crate::task::Fifo;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::thread::sleep;
use std::time::Duration;
use wisp_tests::processes;

/// How long they sit before they are weighed: what frees memory when idle has
/// had the time to.
pub const SETTLE: Duration = Duration::from_secs(2);

/// Of `count` idle containers: the PSS of all processes, by container.
pub fn pss(count: usize) -> String {
    format!("idle-{count}-pss")
}

/// Of `count` idle containers: the shims' private memory, by container.
pub fn shim_private(count: usize) -> String {
    format!("idle-{count}-shim-private")
}

/// Of `count` idle containers: the private memory of the containers' processes,
/// by container.
pub fn container_private(count: usize) -> String {
    format!("idle-{count}-container-private")
}

pub fn measure(bench: &Bench<'_>, results: &mut Results) -> Result<()> {
    const MIB: Unit = Unit::Mebibytes;
    let templates = bench.templates(bench.principals(), Job::Idle)?;
    for (count, times) in &bench.plan.idle {
        for round in 0..*times {
            for (contestant, template) in turned(&templates, round) {
                let name = contestant.name;
                match weigh(bench, template, *count) {
                    Ok(weight) => {
                        results.add(&pss(*count), MIB, name, weight.pss);
                        results.add(&shim_private(*count), MIB, name, weight.shim_private);
                        let container = weight.container_private;
                        results.add(&container_private(*count), MIB, name, container);
                    }
                    Err(error) => {
                        println!("    {count} idle, {name}: {error:#}");
                        results.failed(&pss(*count), MIB, name);
                    }
                }
            }
        }
        println!("    {count} idle containers, {times} times each");
    }
    Ok(())
}

/// MiB by container.
#[derive(Debug, Default)]
struct Weight {
    pss: f64,
    shim_private: f64,
    container_private: f64,
}

fn weigh(bench: &Bench<'_>, template: &Template, count: usize) -> Result<Weight> {
    let api = &bench.api;
    let mut idle = Vec::new();
    let output = Fifo::new(bench.node.dir().join("idle"))?;
    let stream = output.path()?;
    let mut pids = Vec::new();
    let started: Result<()> = (0..count).try_for_each(|_| {
        bench.runtime.block_on(async {
            idle.push(api.prepare(template).await?);
            let prepared = idle.last().context("just pushed")?;
            api.create(prepared, &stream, &stream).await?;
            pids.push(api.start(&prepared.id).await?);
            Ok(())
        })
    });
    let weight = started.and_then(|()| {
        sleep(SETTLE);
        weight_of(&bench.node.name(), &pids)
    });
    bench.runtime.block_on(async {
        for prepared in &idle {
            api.clear(prepared).await;
        }
    });
    weight
}

/// What all processes of a node weigh; those of `pids` are containers.
fn weight_of(node: &str, pids: &[u32]) -> Result<Weight> {
    let mut weight = Weight::default();
    let mut containers = 0;
    for process in processes::concerning(node) {
        // What ends just now weighs nothing.
        let Some(memory) = Memory::of(process.pid) else {
            continue;
        };
        weight.pss += memory.pss;
        if u32::try_from(process.pid).is_ok_and(|pid| pids.contains(&pid)) {
            weight.container_private += memory.private;
            containers += 1;
        } else {
            weight.shim_private += memory.private;
        }
    }
    ensure!(
        containers == pids.len(),
        "{containers} of {} containers are there to be weighed",
        pids.len()
    );
    let by = pids.len() as f64;
    Ok(Weight {
        pss: weight.pss / by,
        shim_private: weight.shim_private / by,
        container_private: weight.container_private / by,
    })
}

/// MiB of one process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub pss: f64,
    pub private: f64,
}

impl Memory {
    /// What a process weighs; nothing if it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
    }

    fn parse(rollup: &str) -> Option<Self> {
        let mebibytes = |name: &str| -> Option<f64> {
            let line = rollup
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes / 1024.0)
        };
        Some(Self {
            pss: mebibytes("Pss")?,
            private: mebibytes("Private_Clean")? + mebibytes("Private_Dirty")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_clean_and_dirty() {
        let rollup = "\
55d0-7ffd ---p 00000000 00:00 0                          [rollup]
Rss:                3000 kB
Pss:                2048 kB
Pss_Dirty:           500 kB
Private_Clean:       256 kB
Private_Dirty:       768 kB
";
        let expected = Memory {
            pss: 2.0,
            private: 1.0,
        };
        assert_eq!(Memory::parse(rollup), Some(expected));
        assert_eq!(Memory::parse(""), None);
    }
}
