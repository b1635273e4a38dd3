//! The list, and why each call is on it.
//!
//! `docs/security.md` has the same list; a test compares the two.

use libc::c_long;

use super::Needs;
use super::program::Answer::{Allow, If, Kill, Missing};
use super::program::{Answer, Check};

/// Whose calls they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Every guest's.
    Everyone,
    /// Those of guests with any socket.
    Sockets,
    /// Of servers and guests that may listen.
    Listening,
    /// Of guests that may connect.
    Connecting,
    /// What only an intruder makes; listed to end it rather than deny it.
    Intruder,
}

impl Group {
    pub fn is_for(self, needs: Needs) -> bool {
        match self {
            Self::Everyone | Self::Intruder => true,
            Self::Sockets => needs.any(),
            Self::Listening => needs.server || needs.listens,
            Self::Connecting => needs.connects,
        }
    }
}

/// A call and its answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub number: c_long,
    #[cfg_attr(not(test), allow(dead_code, reason = "told by the documentation"))]
    pub name: &'static str,
    pub group: Group,
    pub answer: Answer,
    /// What a guest's process does with it.
    #[cfg_attr(not(test), allow(dead_code, reason = "told by the documentation"))]
    pub why: &'static str,
}

macro_rules! calls {
    ($($group:ident $answer:expr, $why:literal: $($name:ident)+;)+) => {
        &[$($(
            Call {
                number: libc::$name,
                name: stringify!($name).split_at(4).1,
                group: Group::$group,
                answer: $answer,
                why: $why,
            },
        )+)+]
    };
}

const fn bits(value: i32) -> u32 {
    value.cast_unsigned()
}

/// No code is made where a guest runs: it is mapped before.
const NO_CODE: Answer = If(&[&[Check::Bits(2, bits(libc::PROT_EXEC), 0)]]);

/// A thread, and neither a process nor a namespace.
const THREAD: Answer = If(&[&[Check::Bits(
    0,
    bits(
        libc::CLONE_THREAD
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET,
    ),
    bits(libc::CLONE_THREAD),
)]]);

const ABORT_2: Answer = If(&[&[Check::Is(2, bits(libc::SIGABRT))]]);
const ABORT_1: Answer = If(&[&[Check::Is(1, bits(libc::SIGABRT))]]);

/// Where new limits would be is a null pointer.
const READ_LIMIT: Answer = If(&[&[Check::Null(0), Check::Null(2)]]);

const CONTROLS: Answer = If(&[
    &[Check::Is(0, bits(libc::PR_SET_NAME))],
    &[Check::Is(0, bits(libc::PR_SET_NO_NEW_PRIVS))],
    // Names of memory, which some allocators give.
    &[Check::Is(0, 0x5356_4d41)],
]);

/// One more filter, without anything that listens to it.
const FILTER: Answer = If(&[&[Check::Is(0, libc::SECCOMP_SET_MODE_FILTER), Check::Is(1, 0)]]);

const REQUESTS: Answer = If(&[
    // Is it a terminal, and how large.
    &[Check::Is(1, libc::TCGETS as u32)],
    &[Check::Is(1, libc::TIOCGWINSZ as u32)],
    // How much can be read; do not wait; close on exec.
    &[Check::Is(1, libc::FIONREAD as u32)],
    &[Check::Is(1, libc::FIONBIO as u32)],
    &[Check::Is(1, libc::FIOCLEX as u32)],
    // PAGEMAP_SCAN: which of its own pages were written.
    &[Check::Is(1, 0xc060_6610)],
]);

const KIND: u32 = 0xf;

/// TCP and UDP, of both versions of IP; nothing raw.
const INTERNET: Answer = If(&[
    &[
        Check::Is(0, bits(libc::AF_INET)),
        Check::Bits(1, KIND, bits(libc::SOCK_STREAM)),
    ],
    &[
        Check::Is(0, bits(libc::AF_INET6)),
        Check::Bits(1, KIND, bits(libc::SOCK_STREAM)),
    ],
    &[
        Check::Is(0, bits(libc::AF_INET)),
        Check::Bits(1, KIND, bits(libc::SOCK_DGRAM)),
    ],
    &[
        Check::Is(0, bits(libc::AF_INET6)),
        Check::Bits(1, KIND, bits(libc::SOCK_DGRAM)),
    ],
]);

const LOCAL_PAIR: Answer = If(&[&[Check::Is(0, bits(libc::AF_UNIX))]]);

/// To nobody but the other end.
const TO_PEER: Answer = If(&[&[Check::Null(4)]]);

/// Open for reading, which some libraries call by its oldest name. `O_ACCMODE` would
/// not do: musl has `O_PATH` in it.
#[cfg(target_arch = "x86_64")]
const READ_ONLY: Answer = If(&[&[Check::Bits(
    1,
    bits(libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC),
    0,
)]]);

const CALLS: &[Call] = calls! {
    Everyone Allow, "what is open is read and written: the guest's streams and files":
        SYS_read SYS_readv SYS_pread64
        SYS_write SYS_writev SYS_pwrite64 SYS_pwritev2
        SYS_lseek SYS_close SYS_fcntl;
    Everyone Allow, "the guest's files, within the jail, as `wasi:filesystem` has it":
        SYS_openat SYS_openat2 SYS_fstat SYS_newfstatat SYS_statx SYS_getdents64
        SYS_mkdirat SYS_unlinkat SYS_renameat SYS_linkat SYS_symlinkat
        SYS_readlinkat SYS_faccessat SYS_faccessat2 SYS_utimensat SYS_ftruncate
        SYS_fsync SYS_fdatasync SYS_fadvise64;
    Everyone REQUESTS, "whether a stream is a terminal; modes of descriptors; which pages an instance has written":
        SYS_ioctl;
    Everyone Allow, "waiting for streams, sockets, clocks and signals":
        SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_restart_syscall;
    Everyone LOCAL_PAIR, "how the event loop hears of signals":
        SYS_socketpair;
    Everyone TO_PEER, "the same, and telling the daemon; with an address only if sockets are granted":
        SYS_sendto SYS_recvfrom;
    Everyone Allow, "linear memories, stacks, the heap":
        SYS_brk SYS_munmap SYS_mremap SYS_madvise;
    Everyone NO_CODE, "the same; nothing executable":
        SYS_mmap SYS_mprotect;
    Everyone Allow, "threads: of the event loop for what blocks, of a server's clock":
        SYS_futex SYS_sched_yield SYS_sched_getaffinity SYS_set_robust_list SYS_rseq
        SYS_gettid SYS_getpid SYS_exit SYS_exit_group;
    Everyone THREAD, "the same; neither processes nor namespaces":
        SYS_clone;
    Everyone Missing, "hides its flags from this list; libraries then take `clone`":
        SYS_clone3;
    Everyone Allow, "traps and the end of a command are signals":
        SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack;
    Everyone ABORT_2, "abort(3), and no other signal":
        SYS_tgkill;
    Everyone ABORT_1, "abort(3), and no other signal":
        SYS_tkill;
    Everyone Allow, "`wasi:clocks` and `wasi:random`":
        SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_getrandom;
    Everyone Allow, "libraries ask who they are; nothing depends on it":
        SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_uname;
    Everyone READ_LIMIT, "how large a thread's stack may be; no limit can be set":
        SYS_prlimit64;
    Everyone CONTROLS, "names of threads and of memory; no_new_privs, which is set":
        SYS_prctl;
    Everyone FILTER, "the pod's own profile comes after this list; it can only take away":
        SYS_seccomp;
    Sockets INTERNET, "TCP and UDP; nothing raw, no packets, no netlink, no local sockets":
        SYS_socket;
    Sockets Allow, "what sockets are set to, and between whom":
        SYS_setsockopt SYS_getsockopt SYS_getsockname SYS_getpeername SYS_shutdown SYS_bind
        SYS_sendmsg SYS_recvmsg SYS_sendto SYS_recvfrom;
    Listening Allow, "HTTP components, and servers of `wasi:sockets`":
        SYS_listen SYS_accept4;
    Connecting Allow, "`wasi:sockets` and outbound HTTP, and looking names up":
        SYS_connect SYS_sendmmsg;
    Intruder Kill, "runs another program":
        SYS_execve SYS_execveat;
    Intruder Kill, "reaches into other processes":
        SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp
        SYS_pidfd_open SYS_pidfd_getfd SYS_pidfd_send_signal SYS_kill;
    Intruder Kill, "changes what is mounted":
        SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen
        SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_swapon SYS_swapoff;
    Intruder Kill, "leaves the container's namespaces, or makes new ones":
        SYS_unshare SYS_setns;
    Intruder Kill, "opens files by other ways than their names":
        SYS_open_by_handle_at SYS_name_to_handle_at;
    Intruder Kill, "parts of the kernel that have been ways into it":
        SYS_bpf SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_userfaultfd
        SYS_perf_event_open SYS_keyctl SYS_add_key SYS_request_key;
    Intruder Kill, "changes the machine":
        SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_reboot
        SYS_settimeofday SYS_clock_adjtime SYS_acct
        SYS_sethostname SYS_setdomainname;
    Intruder Kill, "becomes somebody else":
        SYS_setuid SYS_setgid SYS_setresuid SYS_setresgid
        SYS_setgroups SYS_capset;
};

/// Those of the oldest names, which newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OF_PROCESSOR: &[Call] = calls! {
    Everyone Allow, "the same under older names, which libraries use":
        SYS_poll SYS_epoll_wait SYS_stat;
    Everyone READ_ONLY, "the same; for reading":
        SYS_open;
    Intruder Kill, "the same, on this processor alone":
        SYS_fork SYS_vfork SYS_ioperm SYS_iopl
        SYS_kexec_file_load;
};

/// What libraries call where there is no call of the older name.
#[cfg(not(target_arch = "x86_64"))]
const OF_PROCESSOR: &[Call] = calls! {
    Everyone Allow, "the same, where there is no `poll`":
        SYS_ppoll;
};

/// All calls that are not simply denied. Where a call stands twice for a guest,
/// the later answer counts.
pub fn calls() -> impl Iterator<Item = &'static Call> {
    CALLS.iter().chain(OF_PROCESSOR)
}
