//! What the compiler may use: descriptors, its place behind others, limits.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Missing, last, missing};
use crate::limits::CompilerLimits;
use crate::scheduling;

/// Behind everything that serves; on an idle machine it costs nothing.
const NICE: libc::c_int = 10;

/// Each thread's stack. The deepest programs that the parser lets through need
/// less.
pub(super) const STACK: u64 = 8 << 20;

/// Address space per thread that is reserved and not used: glibc's allocator
/// sets aside two aligned heaps to keep one.
const RESERVED: u64 = 136 << 20;

/// From the signal that the time is over to the kernel's SIGKILL, in seconds.
const GRACE: u64 = 5;

/// The same for the process.
const SPARE: u64 = 64 << 20;

/// Closes all descriptors but the standard streams.
pub(super) fn descriptors() -> Result<(), Missing> {
    let open: Vec<libc::c_int> = fs::read_dir("/proc/self/fd")
        .map_err(missing("list inherited descriptors"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The one that listed them is closed already: no other can fail.
        // SAFETY: takes no pointers. Nothing in this process owns a descriptor
        // beyond the standard streams yet.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Puts others first when processors or memory are short.
pub(super) fn yield_to_others() -> Result<(), Missing> {
    // Raising it is everybody's right.
    fs::write("/proc/self/oom_score_adj", "1000").map_err(missing("raise the OOM score"))?;
    // SAFETY: these take no pointers.
    let lowered = unsafe {
        libc::getpriority(libc::PRIO_PROCESS, 0) >= NICE
            || libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0
    };
    if !lowered {
        return Err(last("lower the priority"));
    }
    // Woken for throughput and not for latency; who started us with less than
    // the usual class keeps us there.
    let step = "take the scheduling class for batch work";
    if scheduling::class().map_err(missing(step))? == libc::SCHED_OTHER {
        scheduling::set_class(libc::SCHED_BATCH).map_err(missing(step))?;
    }
    Ok(())
}

/// Sets the resource limits, soft and hard, for good.
pub(super) fn limit(limits: &CompilerLimits) -> Result<(), Missing> {
    let threads = u64::from(limits.threads);
    let data = limits.memory().saturating_add(threads * STACK);
    let space = used()
        .saturating_add(data)
        .saturating_add(threads * RESERVED + SPARE);
    for (resource, value, step) in [
        (Resource::RLIMIT_DATA, data, "limit memory"),
        // What is not private memory, and what is reserved only.
        (Resource::RLIMIT_AS, space, "limit the address space"),
        (Resource::RLIMIT_STACK, STACK, "limit the stack"),
        (Resource::RLIMIT_FSIZE, limits.code(), "limit the output"),
        (Resource::RLIMIT_CORE, 0, "forbid core dumps"),
        (Resource::RLIMIT_MEMLOCK, 0, "forbid locked memory"),
        (Resource::RLIMIT_MSGQUEUE, 0, "forbid message queues"),
    ] {
        set(resource, value, value, step)?;
    }
    // First a signal, which the compiler takes as its end.
    let killed = limits.cpu_seconds.saturating_add(GRACE);
    set(
        Resource::RLIMIT_CPU,
        limits.cpu_seconds,
        killed,
        "limit the time",
    )
}

/// No descriptor beyond those that there are.
pub(super) fn no_more_descriptors() -> Result<(), Missing> {
    set(Resource::RLIMIT_NOFILE, 3, 3, "limit descriptors")
}

/// Never above what was inherited: that would take a privilege.
fn set(resource: Resource, soft: u64, hard: u64, step: &'static str) -> Result<(), Missing> {
    let (_, most) = getrlimit(resource).map_err(missing(step))?;
    setrlimit(resource, soft.min(most), hard.min(most)).map_err(missing(step))
}

/// The address space in use; generously guessed where /proc does not say.
fn used() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    // SAFETY: takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    match (pages, u64::try_from(page)) {
        (Some(pages), Ok(page)) => pages.saturating_mul(page),
        _ => 256 << 20,
    }
}
