use std::collections::BTreeSet;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::list::Group;
use super::program::Answer;
use super::*;

const NONE: Needs = Needs {
    server: false,
    connects: false,
    listens: false,
};
const ALL: Needs = Needs {
    server: true,
    connects: true,
    listens: true,
};

/// How a process ends that is left with `needs` and then does `body`, whose
/// value is its exit code.
fn end(needs: Needs, body: impl FnOnce() -> i32) -> WaitStatus {
    // SAFETY: the fork calls nothing that needs another thread's lock but the
    // allocator, which glibc and musl hand over unlocked.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let code = match leave(needs) {
                Ok(()) => body(),
                Err(_) => 99,
            };
            // SAFETY: ends the process, without what other threads left.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => waitpid(child, None).expect("wait"),
    }
}

/// Makes a call with numbers; answers its errno, or 0.
fn call(number: libc::c_long, [a, b, c]: [libc::c_long; 3]) -> i32 {
    // SAFETY: the numbers are no addresses, but for null pointers, which the
    // kernel refuses; and all this is in a process made for it.
    match unsafe { libc::syscall(number, a, b, c, 0, 0, 0) } {
        -1 => Errno::last_raw(),
        _ => 0,
    }
}

fn code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

fn is_killed(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _))
}

#[test]
fn what_only_an_intruder_calls_ends_the_process() {
    let mut tried = 0;
    for intruder in calls().filter(|call| call.group == Group::Intruder) {
        let status = end(ALL, || call(intruder.number, [0; 3]));
        assert!(is_killed(status), "{}: {status:?}", intruder.name);
        tried += 1;
    }
    assert!(tried > 50, "{tried}");
    for name in [
        "execve",
        "ptrace",
        "mount",
        "keyctl",
        "io_uring_setup",
        "bpf",
        "userfaultfd",
        "unshare",
        "setns",
        "pivot_root",
        "chroot",
        "kill",
        "setuid",
    ] {
        let is_there = calls().any(|call| call.name == name && call.answer == Answer::Kill);
        assert!(is_there, "{name}");
    }
}

#[test]
fn what_is_not_listed_is_denied() {
    let listed: BTreeSet<_> = calls().map(|call| call.number).collect();
    // Calls have numbers up to 470 or so; the kernel may have more by now.
    // Two are the kernel's own, which it calls a breach before it asks a filter.
    const UPROBES: [libc::c_long; 2] = [335, 336];
    let unlisted: Vec<_> = (0..600)
        .filter(|number| !listed.contains(number) && !UPROBES.contains(number))
        .collect();
    let status = end(ALL, || {
        let wrong = unlisted
            .iter()
            .filter(|number| call(**number, [-1, -1, -1]) != libc::EPERM)
            .count();
        i32::try_from(wrong).unwrap_or(98)
    });
    assert_eq!(code(status), 0);
}

#[test]
fn what_everyone_needs_is_there() {
    for allowed in
        calls().filter(|call| call.group == Group::Everyone && call.answer == Answer::Allow)
    {
        // These would wait, or end the process, or return elsewhere.
        let unfit = [
            libc::SYS_exit,
            libc::SYS_exit_group,
            libc::SYS_rt_sigreturn,
            libc::SYS_ppoll,
            libc::SYS_pselect6,
            libc::SYS_futex,
        ];
        if unfit.contains(&allowed.number) {
            continue;
        }
        let status = end(NONE, || call(allowed.number, [-1, -1, -1]));
        let answer = code(status);
        assert_ne!(answer, libc::EPERM, "{}", allowed.name);
        assert_ne!(answer, libc::ENOSYS, "{}", allowed.name);
    }
}

#[test]
fn sockets_are_for_those_who_are_granted_any() {
    let socket = |domain: i32, kind: i32, protocol: i32| {
        call(
            libc::SYS_socket,
            [domain.into(), kind.into(), protocol.into()],
        )
    };
    let stream = || socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
    let datagram = || socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
    assert_eq!(code(end(NONE, stream)), libc::EPERM);
    let one = |needs| needs;
    for needs in [
        one(Needs {
            server: true,
            ..NONE
        }),
        one(Needs {
            connects: true,
            ..NONE
        }),
        one(Needs {
            listens: true,
            ..NONE
        }),
    ] {
        assert_eq!(code(end(needs, stream)), 0);
        assert_eq!(code(end(needs, datagram)), 0);
        let connect = code(end(needs, || call(libc::SYS_connect, [-1, 0, 0])));
        let listen = code(end(needs, || call(libc::SYS_listen, [-1, 0, 0])));
        let allowed = |yes| if yes { libc::EBADF } else { libc::EPERM };
        assert_eq!(connect, allowed(needs.connects));
        assert_eq!(listen, allowed(needs.server || needs.listens));
    }
    for (domain, kind) in [
        (libc::AF_PACKET, libc::SOCK_RAW),
        (libc::AF_INET, libc::SOCK_RAW),
        (libc::AF_UNIX, libc::SOCK_STREAM),
        (libc::AF_NETLINK, libc::SOCK_RAW),
        (libc::AF_VSOCK, libc::SOCK_STREAM),
        (libc::AF_ALG, libc::SOCK_SEQPACKET),
    ] {
        let status = end(ALL, || socket(domain, kind, 0));
        assert_eq!(code(status), libc::EPERM, "{domain} {kind}");
    }
}

#[test]
fn nothing_executable_can_be_made() {
    let map = |protection: i32| {
        // SAFETY: a new mapping; nothing else is touched.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            None
        } else {
            Some(page)
        }
    };
    let status = end(ALL, || {
        map(libc::PROT_READ | libc::PROT_WRITE).map_or(1, |_| 0)
    });
    assert_eq!(code(status), 0);
    let status = end(ALL, || {
        map(libc::PROT_READ | libc::PROT_EXEC).map_or(1, |_| 0)
    });
    assert_eq!(code(status), 1);
    let status = end(ALL, || {
        let Some(page) = map(libc::PROT_READ) else {
            return 2;
        };
        // SAFETY: the page was just mapped for this.
        match unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) } {
            0 => 0,
            _ => Errno::last_raw(),
        }
    });
    assert_eq!(code(status), libc::EPERM);
}

#[test]
fn threads_run_and_processes_do_not() {
    let status = end(NONE, || {
        let threads = (1..=3).map(|n| std::thread::spawn(move || n));
        threads.map(|thread| thread.join().unwrap_or(50)).sum()
    });
    assert_eq!(code(status), 6);
    for flags in [libc::SIGCHLD, libc::CLONE_NEWUSER | libc::CLONE_THREAD] {
        let status = end(ALL, || call(libc::SYS_clone, [flags.into(), 0, 0]));
        assert_eq!(code(status), libc::EPERM);
    }
    assert_eq!(
        code(end(ALL, || call(libc::SYS_clone3, [0; 3]))),
        libc::ENOSYS
    );
}

#[test]
fn an_abort_and_a_further_filter_are_possible() {
    let status = end(NONE, || std::process::abort());
    assert!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGABRT, _)),
        "{status:?}"
    );
    assert_eq!(code(end(NONE, || i32::from(leave(NONE).is_err()))), 0);
    // One that somebody listens to.
    let listener = || {
        call(
            libc::SYS_seccomp,
            [
                libc::SECCOMP_SET_MODE_FILTER.into(),
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER.cast_signed(),
                0,
            ],
        )
    };
    assert_eq!(code(end(NONE, listener)), libc::EPERM);
    let dumpable: libc::c_long = libc::PR_SET_DUMPABLE.into();
    let status = end(ALL, || call(libc::SYS_prctl, [dumpable, 1, 0]));
    assert_eq!(code(status), libc::EPERM);
}

#[test]
fn the_documentation_has_the_same_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");
    let text = std::fs::read_to_string(path).expect("docs/security.md");
    // Each line of the table: | calls | why |
    let told: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .strip_suffix(" |")?
                .split_once("` | ")
        })
        .flat_map(|(calls, why)| {
            let why = why.to_owned();
            calls
                .split("`, `")
                .map(move |call| (call.to_owned(), why.clone()))
        })
        .filter(|(call, _)| calls().any(|listed| listed.name == call))
        .collect();
    for call in calls() {
        let line = (call.name.to_owned(), call.why.to_owned());
        assert!(
            told.contains(&line),
            "{} is not told as: {}",
            call.name,
            call.why
        );
    }
    let listed: BTreeSet<_> = calls()
        .map(|call| (call.name.to_owned(), call.why.to_owned()))
        .collect();
    let extra: Vec<_> = told.difference(&listed).collect();
    assert!(extra.is_empty(), "not on the list: {extra:?}");
}

#[test]
fn the_list_is_a_short_program_for_everyone() {
    for bits in 0..8 {
        let needs = Needs {
            server: bits & 1 > 0,
            connects: bits & 2 > 0,
            listens: bits & 4 > 0,
        };
        let rules = calls()
            .filter(|call| call.group.is_for(needs))
            .map(|call| (call.number, call.answer))
            .collect();
        let length = program::assemble(rules).map(|program| program.len());
        // Each step costs each container a quarter of a microsecond.
        assert!(length.is_some_and(|length| length < 250), "{length:?}");
    }
}
