//! Which system calls are left: seccomp(2).
//!
//! Three answers. What compiling takes is allowed. What libraries only try, and
//! do without, is answered with ENOSYS. Everything else ends the process:
//! nothing here has a reason to call it.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Operator,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::{Missing, missing};

/// By the number of a call: no rules allow it, else one of them must match.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

const STEP: &str = "limit system calls";

/// Descriptors are what was inherited, so these reach nothing else.
const STREAMS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Beside `mmap` and `mprotect`, which may not make anything executable.
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
];

/// The beginning, the waiting and the end of threads and of the process.
const THREADS: &[c_long] = &[
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
];

/// Rust reports an overflow of the stack from a signal handler.
const SIGNALS: &[c_long] = &[
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// Time, and seeds for hash tables.
const TIME_AND_CHANCE: &[c_long] = &[
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// What the watcher does, beside memory and streams.
const WATCHING: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_wait4,
    libc::SYS_getrusage,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
];

/// Allocators, formatting and the runtimes of Rust and C ask these and take no
/// for an answer. `clone3` hides its flags from a filter; `clone` is tried next.
const TRIED: &[c_long] = &[
    libc::SYS_clone3,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getcwd,
    libc::SYS_membarrier,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
];

/// Leaves the compiler what compiling takes.
pub(super) fn worker() -> Result<(), Missing> {
    let mut rules = calls(&[STREAMS, MEMORY, THREADS, SIGNALS, TIME_AND_CHANCE]);
    no_new_code(&mut rules)?;
    let flags = [
        libc::CLONE_THREAD,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    // A thread, and neither a process nor a namespace.
    rules.insert(
        libc::SYS_clone,
        vec![rule(vec![masked(
            0,
            flags.into_iter().fold(0, |all, flag| all | flag),
            libc::CLONE_THREAD,
        )?])?],
    );
    // abort(3) of glibc and of musl.
    let abort = |index| rule(vec![equal(index, libc::SIGABRT)?]);
    rules.insert(libc::SYS_tgkill, vec![abort(2)?]);
    rules.insert(libc::SYS_tkill, vec![abort(1)?]);
    // A limit may be read: where a new one would be is a null pointer.
    let read = SeccompCondition::new(2, Length::Qword, Operator::Eq, 0).map_err(bad)?;
    rules.insert(libc::SYS_prlimit64, vec![rule(vec![read])?]);
    rules.insert(
        libc::SYS_prctl,
        vec![rule(vec![equal(0, libc::PR_SET_NAME)?])?],
    );
    install(rules)
}

/// Leaves the watcher what waiting and telling takes.
pub(super) fn watcher() -> Result<(), Missing> {
    let mut rules = calls(&[STREAMS, MEMORY, WATCHING]);
    no_new_code(&mut rules)?;
    install(rules)
}

fn calls(groups: &[&[c_long]]) -> Rules {
    groups
        .iter()
        .flat_map(|group| group.iter())
        .map(|call| (*call, Vec::new()))
        .collect()
}

/// Memory without content from a file, and none that is executable: a compiler
/// writes code, it does not run it.
fn no_new_code(rules: &mut Rules) -> Result<(), Missing> {
    let data = || masked(2, libc::PROT_EXEC, 0);
    let anonymous = masked(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS)?;
    rules.insert(libc::SYS_mmap, vec![rule(vec![data()?, anonymous])?]);
    rules.insert(libc::SYS_mprotect, vec![rule(vec![data()?])?]);
    Ok(())
}

/// Both filters bind all threads to come. The kernel takes the strictest answer
/// of the two.
fn install(mut allowed: Rules) -> Result<(), Missing> {
    let tried = calls(&[TRIED]);
    allowed.extend(tried.clone());
    let unknown = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let programs = [
        program(tried, SeccompAction::Allow, unknown)?,
        // Last: it forbids to install another.
        program(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ];
    for program in programs {
        seccompiler::apply_filter(&program)
            .map_err(|error| missing(STEP)(std::io::Error::other(error.to_string())))?;
    }
    Ok(())
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, Missing> {
    // `c_long` and `i64` are the same on all machines that the runtime supports.
    #[allow(clippy::useless_conversion)]
    let rules = rules
        .into_iter()
        .map(|(call, rules)| (call.into(), rules))
        .collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(bad)?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .map_err(bad)?
        .try_into()
        .map_err(bad)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, Missing> {
    SeccompRule::new(conditions).map_err(bad)
}

/// Flags and numbers of the C type `int`: the upper half is not looked at by
/// the kernel either.
fn equal(index: u8, value: i32) -> Result<SeccompCondition, Missing> {
    SeccompCondition::new(index, Length::Dword, Operator::Eq, low(value)).map_err(bad)
}

fn masked(index: u8, mask: i32, value: i32) -> Result<SeccompCondition, Missing> {
    SeccompCondition::new(
        index,
        Length::Qword,
        Operator::MaskedEq(low(mask)),
        low(value),
    )
    .map_err(bad)
}

fn low(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn bad(error: seccompiler::BackendError) -> Missing {
    missing(STEP)(std::io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    /// How a process ends that installs the filter and then makes `call`, whose
    /// value is its exit code.
    fn end(install: fn() -> Result<(), Missing>, call: fn() -> c_long) -> WaitStatus {
        // SAFETY: the fork calls nothing that needs another thread's lock but
        // the allocator, which glibc and musl hand over unlocked.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                // An unprivileged process may only install filters so.
                let code = match nix::sys::prctl::set_no_new_privs()
                    .map_err(missing(STEP))
                    .and_then(|()| install())
                {
                    Ok(()) => i32::try_from(call()).unwrap_or(98),
                    Err(_) => 99,
                };
                // SAFETY: ends the process, without what other threads left.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => waitpid(child, None).expect("wait"),
        }
    }

    /// Makes a call with three numbers.
    fn call(number: c_long, [a, b, c]: [libc::c_int; 3]) -> c_long {
        // SAFETY: none of the numbers is the address of anything: a call that
        // wants one fails. And all this is in a process made for it.
        unsafe { libc::syscall(number, a, b, c) }
    }

    fn code(status: WaitStatus) -> Option<i32> {
        match status {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }

    fn is_killed(status: WaitStatus) -> bool {
        matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _))
    }

    /// A call's errno, negative, or 0.
    fn errno(value: c_long) -> c_long {
        if value < 0 {
            nix::errno::Errno::last_raw().into()
        } else {
            0
        }
    }

    #[test]
    fn what_nothing_here_needs_ends_the_process() {
        let calls: [fn() -> c_long; 12] = [
            || call(libc::SYS_socket, [libc::AF_UNIX, libc::SOCK_STREAM, 0]),
            || call(libc::SYS_execve, [0; 3]),
            || call(libc::SYS_ptrace, [0; 3]),
            || call(libc::SYS_unshare, [libc::CLONE_NEWUSER, 0, 0]),
            || call(libc::SYS_kill, [0; 3]),
            || call(libc::SYS_clone, [libc::SIGCHLD, 0, 0]),
            || call(libc::SYS_memfd_create, [0; 3]),
            || call(libc::SYS_bpf, [0; 3]),
            || call(libc::SYS_io_uring_setup, [1, 0, 0]),
            || call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE, 1, 0]),
            || call(libc::SYS_tgkill, [1, 1, libc::SIGTERM]),
            || call(libc::SYS_pidfd_open, [1, 0, 0]),
        ];
        for (index, call) in calls.into_iter().enumerate() {
            for install in [worker, watcher] {
                let status = end(install, call);
                assert!(is_killed(status), "call {index}: {status:?}");
            }
        }
    }

    #[test]
    fn memory_can_be_had_but_not_made_executable() {
        fn map(protection: i32, flags: i32, fd: i32) -> c_long {
            // SAFETY: a new mapping; nothing else is touched.
            unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, fd, 0) }
        }
        const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        for install in [worker, watcher] {
            let plain = || errno(map(libc::PROT_READ | libc::PROT_WRITE, ANONYMOUS, -1));
            assert_eq!(code(end(install, plain)), Some(0));
            let code = || map(libc::PROT_READ | libc::PROT_EXEC, ANONYMOUS, -1);
            assert!(is_killed(end(install, code)));
            let file = || map(libc::PROT_READ, libc::MAP_PRIVATE, 0);
            assert!(is_killed(end(install, file)));
            let late = || {
                let page = map(libc::PROT_READ, ANONYMOUS, -1);
                // SAFETY: the page was just mapped for this.
                unsafe { libc::syscall(libc::SYS_mprotect, page, 4096, libc::PROT_EXEC) }
            };
            assert!(is_killed(end(install, late)));
        }
    }

    #[test]
    fn what_is_only_tried_is_not_there() {
        for install in [worker, watcher] {
            let open = || {
                // SAFETY: the path is a string that ends with a NUL.
                errno(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/".as_ptr(), 0) })
            };
            assert_eq!(code(end(install, open)), Some(libc::ENOSYS));
        }
    }

    #[test]
    fn a_limit_can_be_read_and_not_set() {
        fn limit(new: *const libc::rlimit64, old: *mut libc::rlimit64) -> c_long {
            // SAFETY: both are null or valid.
            errno(unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_CORE, new, old) })
        }
        static NONE: libc::rlimit64 = libc::rlimit64 {
            rlim_cur: 0,
            rlim_max: 0,
        };
        let read = || {
            let mut old = NONE;
            limit(std::ptr::null(), &raw mut old)
        };
        assert_eq!(code(end(worker, read)), Some(0));
        let set = || limit(&raw const NONE, std::ptr::null_mut());
        assert!(is_killed(end(worker, set)));
    }

    #[test]
    fn threads_run_and_end() {
        let status = end(worker, || {
            let sum: c_long = (0..4)
                .map(|n| std::thread::spawn(move || n))
                .map(|thread| thread.join().unwrap_or(50))
                .sum();
            sum
        });
        assert_eq!(code(status), Some(6));
    }

    #[test]
    fn an_abort_is_one() {
        let status = end(worker, || std::process::abort());
        assert!(
            matches!(status, WaitStatus::Signaled(_, Signal::SIGABRT, _)),
            "{status:?}"
        );
    }
    #[test]
    fn a_stack_overflow_is_told_and_ends_as_an_abort() {
        fn deeper(depth: u64) -> u64 {
            match std::hint::black_box(depth) {
                u64::MAX => 0,
                depth => depth ^ std::hint::black_box(deeper(depth + 1)),
            }
        }
        let status = end(worker, || {
            let deep = std::thread::spawn(|| deeper(0)).join();
            c_long::from(deep.is_ok())
        });
        assert!(
            matches!(status, WaitStatus::Signaled(_, Signal::SIGABRT, _)),
            "{status:?}"
        );
    }
}
