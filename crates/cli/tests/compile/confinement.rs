//! What is left to a compiler, as the kernel sees it. It waits for its program
//! meanwhile: all that it gives up, it has given up before.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::node::Node;
use crate::process::{Process, until};

/// A user that is in no file.
const USER: u32 = 54_321;
const NOBODY: &str = "65534 65534 65534 65534";
const NONE: &str = "0000000000000000";
const NAMESPACES: [&str; 5] = ["mnt", "net", "ipc", "uts", "cgroup"];
/// The smallest module.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

const THREADS: u32 = 3;

struct Compiling {
    node: Node,
    child: Child,
    watcher: Process,
    worker: Process,
}

fn command(node: &Node) -> Command {
    let mut command = Command::new(node.wisp());
    command
        .args(["compile", "--memory-mib=300", "--max-code-mib=7"])
        .args(["--cpu-seconds=77", &format!("--threads={THREADS}")])
        .env("SECRET", "swordfish")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it, and waits until it waits for its program.
fn compiling(edit: impl FnOnce(&mut Command)) -> Compiling {
    let node = Node::new(|_| {});
    let mut command = command(&node);
    edit(&mut command);
    let child = command.spawn().expect("start");
    let watcher = Process(child.id());
    let mut worker = None;
    until("there is a compiler", || {
        worker = watcher.child();
        worker.is_some()
    });
    let worker = worker.expect("found");
    until("the compiler waits for its program", || {
        worker.status("Threads") == (THREADS + 1).to_string()
    });
    Compiling {
        node,
        child,
        watcher,
        worker,
    }
}

impl Compiling {
    /// Gives it `program`; answers its code and what it says.
    fn finish(mut self, program: &[u8]) -> (ExitStatus, Vec<u8>, String) {
        let mut stdin = self.child.stdin.take().expect("stdin");
        // One that has ended does not read it.
        let _ = stdin.write_all(program);
        drop(stdin);
        let output = self.child.wait_with_output().expect("wait");
        self.node.nothing_runs();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status, output.stdout, words)
    }

    fn compiles(self) {
        let (status, code, words) = self.finish(MODULE);
        assert!(status.success(), "{status}: {words}");
        assert!(code.starts_with(b"\x7fELF"));
    }
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// What every compiler is, whoever starts it.
fn assert_harmless(compiling: &Compiling) {
    for process in [compiling.watcher, compiling.worker] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(process.status(set), NONE, "{set}");
        }
        assert_eq!(process.status("NoNewPrivs"), "1");
        // 2: filters.
        assert_eq!(process.status("Seccomp"), "2");
        assert_eq!(process.text("oom_score_adj").trim(), "1000");
        assert_eq!(process.stat(19), "10", "its nice value");
        assert_eq!(process.stat(41), libc::SCHED_BATCH.to_string(), "its class");
        assert_eq!(process.limit("Max core file size"), ["0", "0"]);
        assert_eq!(process.limit("Max cpu time"), ["77", "82"]);
        assert_eq!(
            process.limit("Max file size"),
            ["7340032", "7340032"],
            "the size of its code"
        );
        let data = (300_u64 << 20) + u64::from(THREADS) * (8 << 20);
        assert_eq!(
            process.limit("Max data size"),
            [data.to_string(), data.to_string()]
        );
        let space = process.limit("Max address space");
        assert!(
            space[0] == space[1] && space[0].parse::<u64>().is_ok(),
            "{space:?}"
        );
        // That of a process that may be looked into belongs to its user.
        let owner = fs::metadata(compiling.worker.path("fd")).expect("fd").uid();
        assert_eq!(owner, 0, "it can be looked into");
    }
    assert_eq!(compiling.worker.limit("Max open files"), ["3", "3"]);
}

/// What it is in namespaces of its own. Only root can look.
fn assert_isolated(compiling: &Compiling) {
    assert_harmless(compiling);
    let Compiling {
        watcher, worker, ..
    } = *compiling;
    for process in [watcher, worker] {
        assert_eq!(process.status("CapBnd"), NONE);
        for name in NAMESPACES {
            let (its, ours) = (process.namespace(name), Process::own().namespace(name));
            assert!(!its.is_empty() && its != ours, "{name}: {its}, ours {ours}");
        }
        assert_eq!(process.text("environ").trim_matches('\0'), "");
        let mounts = process.text("mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
        let root: Vec<_> = fs::read_dir(process.path("root")).expect("root").collect();
        assert!(root.is_empty(), "{root:?}");
        assert_eq!(
            fs::read_link(process.path("cwd")).expect("cwd"),
            std::path::Path::new("/")
        );
        let interfaces = process.text("net/dev");
        // Two lines of heading, and the loopback that every namespace has.
        assert_eq!(interfaces.lines().count(), 3, "{interfaces}");
        let routes = process.text("net/route");
        assert_eq!(routes.lines().skip(1).count(), 0, "{routes}");
    }
    assert_eq!(
        worker.status("NSpid"),
        format!("{} 1", worker.0),
        "the first process of a pid namespace"
    );
    assert_eq!(worker.descriptors(), BTreeSet::from([0, 1, 2]));
    // Its own stderr, and what the compiler says.
    assert_eq!(watcher.descriptors(), BTreeSet::from([2, 3]));
}

#[test]
fn a_compiler_that_root_starts_has_nothing() {
    if !is_root() {
        return;
    }
    // A descriptor that somebody forgot to close.
    let leak = fs::File::open("/etc/hostname").expect("file");
    let compiling = compiling(|command| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&leak);
        // SAFETY: dup2 is allowed between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(fd, 77) {
                77 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    });
    assert_isolated(&compiling);
    for process in [compiling.watcher, compiling.worker] {
        assert_eq!(process.status("Uid"), NOBODY);
        assert_eq!(process.status("Gid"), NOBODY);
        assert_eq!(process.status("Groups"), "");
    }
    compiling.compiles();
}

#[test]
fn a_compiler_that_a_user_starts_has_nothing_either() {
    if !is_root() {
        return;
    }
    let compiling = compiling(|command| {
        command.uid(USER).gid(USER);
    });
    assert_isolated(&compiling);
    for process in [compiling.watcher, compiling.worker] {
        let namespace = process.namespace("user");
        assert_ne!(namespace, Process::own().namespace("user"));
        // The only user that there is.
        assert_eq!(
            process
                .text("uid_map")
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["65534", &USER.to_string(), "1"]
        );
    }
    compiling.compiles();
}

/// Has the kernel refuse new namespaces.
fn without_namespaces(command: &mut Command) {
    let filter: BpfProgram = SeccompFilter::new(
        [(libc::SYS_unshare, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into().expect("known"),
    )
    .expect("filter")
    .try_into()
    .expect("program");
    // SAFETY: two system calls and no allocation.
    unsafe {
        command.pre_exec(move || {
            seccompiler::apply_filter(&filter).map_err(|_| std::io::Error::last_os_error())
        });
    }
}

fn words(mut command: Command) -> String {
    let mut child = command.spawn().expect("start");
    // It must not read: there is nothing to read and no end.
    let stdin = child.stdin.take();
    assert_eq!(child.wait().expect("wait").code(), Some(1));
    drop(stdin);
    let mut words = String::new();
    let mut stderr = child.stderr.take().expect("stderr");
    stderr.read_to_string(&mut words).expect("words");
    let mut code = Vec::new();
    let mut stdout = child.stdout.take().expect("stdout");
    stdout.read_to_end(&mut code).expect("code");
    assert!(code.is_empty());
    words
}

#[test]
fn without_its_confinement_nothing_is_compiled() {
    let node = Node::new(|_| {});
    let mut command = command(&node);
    without_namespaces(&mut command);
    let words = words(command);
    assert!(
        words.contains("does not run without its confinement"),
        "{words}"
    );
    assert!(words.contains("new namespaces"), "{words}");
    assert!(words.contains("not permitted"), "{words}");
}

#[test]
fn a_user_without_namespaces_can_have_all_the_rest() {
    let user = |command: &mut Command| {
        if is_root() {
            command.uid(USER).gid(USER);
        }
        without_namespaces(command);
    };
    let compiling = compiling(|command| {
        user(command);
        command.arg("--confine=possible");
    });
    if is_root() {
        assert_harmless(&compiling);
        assert_eq!(compiling.worker.descriptors(), BTreeSet::from([0, 1, 2]));
    }
    compiling.compiles();
    let node = Node::new(|_| {});
    let mut command = command(&node);
    user(&mut command);
    let words = words(command);
    assert!(words.contains("--confine possible"), "{words}");
}

#[test]
fn the_compiler_dies_with_its_watcher() {
    let mut compiling = compiling(|_| {});
    compiling.child.kill().expect("kill");
    compiling.child.wait().expect("wait");
    until("the compiler is gone", || compiling.worker.is_gone());
}

#[test]
fn both_die_with_whoever_started_them() {
    let node = Node::new(|_| {});
    let script = node.dir().join("parent");
    fs::write(
        &script,
        "#!/bin/sh\nexec 3<&0\n\"$1\" compile <&3 >/dev/null &\nwait\n",
    )
    .expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut parent = Command::new("/bin/sh")
        .arg(&script)
        .arg(node.wisp())
        .stdin(Stdio::piped())
        .spawn()
        .expect("start");
    let mut found = None;
    until("there is a compiler that waits", || {
        let watcher = Process(parent.id()).child();
        found = watcher.and_then(|watcher| Some((watcher, watcher.child()?)));
        found.is_some_and(|(_, worker)| worker.status("Seccomp") == "2")
    });
    let (watcher, worker) = found.expect("found");
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    until("both are gone", || watcher.is_gone() && worker.is_gone());
}

#[test]
fn a_compiler_that_is_killed_is_told_of() {
    let compiling = compiling(|_| {});
    let pid = Pid::from_raw(i32::try_from(compiling.worker.0).expect("pid"));
    kill(pid, Signal::SIGKILL).expect("kill");
    let (status, code, words) = compiling.finish(MODULE);
    assert_eq!(status.code(), Some(1));
    assert!(code.is_empty());
    assert!(words.contains("was killed"), "{words}");
    assert!(words.contains("compiler.memory_mib"), "{words}");
}

#[test]
fn an_unknown_confinement_is_an_error() {
    let node = Node::new(|_| {});
    let output = Command::new(node.wisp())
        .args(["compile", "--confine=none"])
        .stdin(Stdio::null())
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("`full` or `possible`"), "{words}");
}
