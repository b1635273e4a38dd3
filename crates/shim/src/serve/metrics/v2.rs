//! Metrics by cgroup version 2.

use containerd_shim::protos::protobuf::MessageField;
use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats,
    PidsStat,
};
use wisp_container::cgroup::Cgroup;

use super::{Flat, device, huge_page_sizes, single};

/// What the cgroup's processes use.
pub fn metrics(cgroup: &Cgroup) -> Metrics {
    Metrics {
        pids: pids(cgroup).into(),
        cpu: cpu(cgroup).into(),
        memory: memory(cgroup).into(),
        io: MessageField::some(io(cgroup)),
        hugetlb: hugetlb(cgroup),
        memory_events: memory_events(cgroup).into(),
        ..Metrics::default()
    }
}

fn pids(cgroup: &Cgroup) -> Option<PidsStat> {
    Some(PidsStat {
        current: single(cgroup, "pids", "pids.current")?,
        limit: single(cgroup, "pids", "pids.max")
            .filter(|max| *max != u64::MAX)
            .unwrap_or(0),
        ..PidsStat::default()
    })
}

fn cpu(cgroup: &Cgroup) -> Option<CPUStat> {
    let stat = Flat::of(cgroup, "cpu", "cpu.stat")?;
    Some(CPUStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
        psi: pressure(cgroup, "cpu.pressure").into(),
        ..CPUStat::default()
    })
}

fn memory(cgroup: &Cgroup) -> Option<MemoryStat> {
    let stat = Flat::of(cgroup, "memory", "memory.stat")?;
    let read = |file: &str| single(cgroup, "memory", file).unwrap_or_default();
    Some(MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        workingset_refault: stat.get("workingset_refault"),
        workingset_activate: stat.get("workingset_activate"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: read("memory.current"),
        usage_limit: read("memory.max"),
        swap_usage: read("memory.swap.current"),
        swap_limit: read("memory.swap.max"),
        max_usage: read("memory.peak"),
        swap_max_usage: read("memory.swap.peak"),
        psi: pressure(cgroup, "memory.pressure").into(),
        ..MemoryStat::default()
    })
}

fn memory_events(cgroup: &Cgroup) -> Option<MemoryEvents> {
    let events = Flat::of(cgroup, "memory", "memory.events")?;
    Some(MemoryEvents {
        low: events.get("low"),
        high: events.get("high"),
        max: events.get("max"),
        oom: events.get("oom"),
        oom_kill: events.get("oom_kill"),
        oom_group_kill: events.get("oom_group_kill"),
        ..MemoryEvents::default()
    })
}

fn io(cgroup: &Cgroup) -> IOStat {
    let text = cgroup.read("io", "io.stat").unwrap_or_default();
    IOStat {
        usage: text.lines().filter_map(io_entry).collect(),
        psi: pressure(cgroup, "io.pressure").into(),
        ..IOStat::default()
    }
}

/// A line `major:minor rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn io_entry(line: &str) -> Option<IOEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = device(words.next()?)?;
    let mut entry = IOEntry {
        major,
        minor,
        ..IOEntry::default()
    };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let Ok(value) = value.parse() else { continue };
        match key {
            "rbytes" => entry.rbytes = value,
            "wbytes" => entry.wbytes = value,
            "rios" => entry.rios = value,
            "wios" => entry.wios = value,
            _ => {}
        }
    }
    Some(entry)
}

fn hugetlb(cgroup: &Cgroup) -> Vec<HugeTlbStat> {
    let read =
        |size: &str, what: &str| single(cgroup, "hugetlb", &format!("hugetlb.{size}.{what}"));
    huge_page_sizes()
        .into_iter()
        .filter_map(|pagesize| {
            Some(HugeTlbStat {
                current: read(&pagesize, "current")?,
                max: read(&pagesize, "max")?,
                failcnt: Flat::of(cgroup, "hugetlb", &format!("hugetlb.{pagesize}.events"))?
                    .get("max"),
                pagesize,
                ..HugeTlbStat::default()
            })
        })
        .collect()
}

/// Pressure stall information, where the kernel has it.
fn pressure(cgroup: &Cgroup, file: &str) -> Option<PSIStats> {
    let text = cgroup.read("unified", file).ok()?;
    let line = |kind: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(kind))
            .map(psi_data)
    };
    Some(PSIStats {
        some: line("some ").into(),
        full: line("full ").into(),
        ..PSIStats::default()
    })
}

fn psi_data(line: &str) -> PSIData {
    let mut data = PSIData::default();
    for (key, value) in line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        let average = || value.parse().unwrap_or_default();
        match key {
            "avg10" => data.avg10 = average(),
            "avg60" => data.avg60 = average(),
            "avg300" => data.avg300 = average(),
            "total" => data.total = value.parse().unwrap_or_default(),
            _ => {}
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_io_has_its_keys_in_any_order() {
        let entry = io_entry("8:16 wbytes=2 rbytes=1 rios=3 wios=4 dbytes=9").expect("entry");
        assert_eq!(
            (
                entry.major,
                entry.minor,
                entry.rbytes,
                entry.wbytes,
                entry.rios,
                entry.wios
            ),
            (8, 16, 1, 2, 3, 4)
        );
        assert!(io_entry("not a device").is_none());
    }

    #[test]
    fn pressure_is_averages_and_a_total() {
        let data = psi_data("avg10=0.22 avg60=0.17 avg300=1.11 total=58761459");
        assert_eq!(
            (data.avg10, data.avg60, data.avg300, data.total),
            (0.22, 0.17, 1.11, 58_761_459)
        );
    }
}
