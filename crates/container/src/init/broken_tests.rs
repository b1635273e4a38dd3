//! A sandbox that is broken: native code in the guest's place, with all that the
//! guest's process does to itself, that tries what an intruder would.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use oci_spec::runtime::Process;

use super::{calls, confine, landlock};

/// Runs `attempt` in a process that is what a guest's is, but for its root and
/// namespaces; `None` if it was killed for a system call, else whether the
/// attempt succeeded.
fn within(uid: u32, files: &Path, attempt: impl FnOnce() -> bool) -> Option<bool> {
    let process: Process = serde_json::from_str(&format!(
        r#"{{"cwd":"/","user":{{"uid":{uid},"gid":{uid}}},"noNewPrivileges":true}}"#
    ))
    .expect("process");
    // SAFETY: the fork calls nothing that needs another thread's lock but the
    // allocator, which glibc and musl hand over unlocked.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let confined = confine::user(&process)
                .and_then(|()| confine::undumpable())
                .map_err(drop)
                .and_then(|()| landlock::restrict(&[(files, true)]).map_err(drop))
                .and_then(|()| calls::leave(calls::Needs::default()).map_err(drop));
            let code = match confined {
                Ok(()) => i32::from(attempt()),
                Err(()) => 99,
            };
            // SAFETY: ends the process, without what other threads left.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).expect("wait") {
            WaitStatus::Exited(_, code @ (0 | 1)) => Some(code == 1),
            WaitStatus::Signaled(_, Signal::SIGSYS, _) => None,
            other => panic!("{other:?}"),
        },
    }
}

fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> bool {
    let [a, b, c] = arguments;
    // SAFETY: the numbers are no addresses but null pointers; all this is in a
    // process made for it.
    Errno::result(unsafe { libc::syscall(number, a, b, c, 0, 0) }).is_ok()
}

#[test]
fn native_code_in_the_guests_place_reaches_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let (own, elsewhere) = (dir.path().join("own"), dir.path().join("elsewhere"));
    for place in [&own, &elsewhere] {
        fs::create_dir(place).expect("dir");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(place, open).expect("mode");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).expect("mode");
    let secret = elsewhere.join("secret");
    fs::write(&secret, "secret").expect("write");
    fs::copy("/bin/true", own.join("true")).expect("copy");
    let socket = elsewhere.join("containerd.sock");
    let _listener = UnixListener::bind(&socket).expect("listen");
    let parent = libc::c_long::from(std::process::id());

    for uid in [0, 1000] {
        let attempt = |attempt: &dyn Fn() -> bool| within(uid, &own, attempt);
        // What it may: its own files.
        assert_eq!(
            attempt(&|| fs::write(own.join(format!("file-{uid}")), "x").is_ok()),
            Some(true)
        );
        let denied: [(&str, &dyn Fn() -> bool); 8] = [
            ("a host's file", &|| File::open(&secret).is_ok()),
            ("/etc/shadow", &|| File::open("/etc/shadow").is_ok()),
            ("/proc", &|| {
                File::open(format!("/proc/{parent}/mem")).is_ok()
            }),
            ("a new host's file", &|| {
                fs::write(elsewhere.join("new"), "x").is_ok()
            }),
            ("containerd's socket", &|| {
                UnixStream::connect(&socket).is_ok()
            }),
            ("a connection", &|| {
                TcpStream::connect("127.0.0.1:1").is_ok()
            }),
            ("a raw socket", &|| {
                call(
                    libc::SYS_socket,
                    [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0],
                )
            }),
            ("a process", &|| {
                call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0])
            }),
        ];
        for (what, try_it) in denied {
            assert_eq!(attempt(try_it), Some(false), "{what} as {uid}");
        }
        let fatal: [(&str, &dyn Fn() -> bool); 7] = [
            ("ptrace", &|| {
                call(libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), parent, 0])
            }),
            ("mount", &|| call(libc::SYS_mount, [0; 3])),
            ("exec", &|| {
                let _ = Command::new(own.join("true")).exec();
                true
            }),
            ("kill", &|| call(libc::SYS_kill, [parent, 0, 0])),
            ("setuid", &|| call(libc::SYS_setuid, [0, 0, 0])),
            ("namespaces", &|| {
                call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0])
            }),
            ("bpf", &|| call(libc::SYS_bpf, [0; 3])),
        ];
        for (what, try_it) in fatal {
            assert_eq!(attempt(try_it), None, "{what} as {uid}");
        }
    }
}
