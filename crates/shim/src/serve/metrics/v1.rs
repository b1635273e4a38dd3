//! Metrics by cgroup version 1.

use containerd_shim::protos::protobuf::MessageField;
use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, Throttle,
};
use nix::unistd::{SysconfVar, sysconf};
use wisp_container::cgroup::Cgroup;

use super::{Flat, device, huge_page_sizes, single};

/// What the cgroup's processes use.
pub fn metrics(cgroup: &Cgroup) -> Metrics {
    Metrics {
        hugetlb: hugetlb(cgroup),
        pids: pids(cgroup).into(),
        cpu: MessageField::some(cpu(cgroup)),
        memory: memory(cgroup).into(),
        blkio: MessageField::some(blkio(cgroup)),
        memory_oom_control: oom_control(cgroup).into(),
        ..Metrics::default()
    }
}

fn hugetlb(cgroup: &Cgroup) -> Vec<HugetlbStat> {
    let read =
        |size: &str, what: &str| single(cgroup, "hugetlb", &format!("hugetlb.{size}.{what}"));
    huge_page_sizes()
        .into_iter()
        .filter_map(|pagesize| {
            Some(HugetlbStat {
                usage: read(&pagesize, "usage_in_bytes")?,
                max: read(&pagesize, "max_usage_in_bytes")?,
                failcnt: read(&pagesize, "failcnt")?,
                pagesize,
                ..HugetlbStat::default()
            })
        })
        .collect()
}

fn pids(cgroup: &Cgroup) -> Option<PidsStat> {
    Some(PidsStat {
        current: single(cgroup, "pids", "pids.current")?,
        // No limit is 0 here.
        limit: single(cgroup, "pids", "pids.max")
            .filter(|max| *max != u64::MAX)
            .unwrap_or(0),
        ..PidsStat::default()
    })
}

fn cpu(cgroup: &Cgroup) -> CPUStat {
    let throttling = Flat::of(cgroup, "cpu", "cpu.stat").map(|stat| Throttle {
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled_time: stat.get("throttled_time"),
        ..Throttle::default()
    });
    let ticks = Flat::of(cgroup, "cpuacct", "cpuacct.stat");
    let per_cpu = cgroup
        .read("cpuacct", "cpuacct.usage_percpu")
        .unwrap_or_default();
    let usage = CPUUsage {
        total: single(cgroup, "cpuacct", "cpuacct.usage").unwrap_or_default(),
        kernel: nanoseconds(ticks.as_ref().map_or(0, |ticks| ticks.get("system"))),
        user: nanoseconds(ticks.as_ref().map_or(0, |ticks| ticks.get("user"))),
        per_cpu: per_cpu
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect(),
        ..CPUUsage::default()
    };
    CPUStat {
        usage: MessageField::some(usage),
        throttling: throttling.into(),
        ..CPUStat::default()
    }
}

/// The kernel counts in ticks of its interface's clock.
fn nanoseconds(ticks: u64) -> u64 {
    let per_second = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100);
    ticks.saturating_mul(1_000_000_000 / per_second)
}

fn memory(cgroup: &Cgroup) -> Option<MemoryStat> {
    let stat = Flat::of(cgroup, "memory", "memory.stat")?;
    let entry = |name: &str| {
        let read = |what: &str| single(cgroup, "memory", &format!("memory.{name}{what}"));
        let usage = read("usage_in_bytes")?;
        Some(MemoryEntry {
            limit: read("limit_in_bytes").unwrap_or_default(),
            usage,
            max: read("max_usage_in_bytes").unwrap_or_default(),
            failcnt: read("failcnt").unwrap_or_default(),
            ..MemoryEntry::default()
        })
    };
    Some(MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry("").into(),
        swap: entry("memsw.").into(),
        kernel: entry("kmem.").into(),
        kernel_tcp: entry("kmem.tcp.").into(),
        ..MemoryStat::default()
    })
}

fn oom_control(cgroup: &Cgroup) -> Option<MemoryOomControl> {
    let control = Flat::of(cgroup, "memory", "memory.oom_control")?;
    Some(MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
        ..MemoryOomControl::default()
    })
}

fn blkio(cgroup: &Cgroup) -> BlkIOStat {
    // Which of them counts depends on the device's scheduler; the throttle's
    // counters are always there.
    let read = |name: &str| {
        [
            format!("blkio.{name}_recursive"),
            format!("blkio.bfq.{name}_recursive"),
            format!("blkio.throttle.{name}_recursive"),
            format!("blkio.throttle.{name}"),
        ]
        .iter()
        .filter_map(|file| cgroup.read("blkio", file).ok())
        .map(|text| entries(&text))
        .find(|entries| !entries.is_empty())
        .unwrap_or_default()
    };
    BlkIOStat {
        io_service_bytes_recursive: read("io_service_bytes"),
        io_serviced_recursive: read("io_serviced"),
        io_queued_recursive: read("io_queued"),
        io_service_time_recursive: read("io_service_time"),
        io_wait_time_recursive: read("io_wait_time"),
        io_merged_recursive: read("io_merged"),
        io_time_recursive: read("time"),
        sectors_recursive: read("sectors"),
        ..BlkIOStat::default()
    }
}

/// Lines `major:minor operation value` or `major:minor value`; the kernel's
/// sum over all devices is not one of them.
fn entries(text: &str) -> Vec<BlkIOEntry> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, op, value) = match words[..] {
                [name, value] => (name, "", value),
                [name, op, value] => (name, op, value),
                _ => return None,
            };
            let (major, minor) = device(name)?;
            Some(BlkIOEntry {
                op: op.to_owned(),
                device: device_path(major, minor),
                major,
                minor,
                value: value.parse().ok()?,
                ..BlkIOEntry::default()
            })
        })
        .collect()
}

/// `/dev/NAME` of a block device, or nothing.
fn device_path(major: u64, minor: u64) -> String {
    std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))
        .ok()
        .and_then(|link| Some(format!("/dev/{}", link.file_name()?.to_string_lossy())))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_from_the_sum() {
        let found = entries("8:0 Read 4096\n8:0 Write 0\n8:1 77\nTotal 4173\n\n");
        let shown: Vec<_> = found
            .iter()
            .map(|entry| (entry.major, entry.minor, entry.op.as_str(), entry.value))
            .collect();
        assert_eq!(
            shown,
            [(8, 0, "Read", 4096), (8, 0, "Write", 0), (8, 1, "", 77)]
        );
    }
}
