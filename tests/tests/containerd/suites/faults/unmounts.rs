//! Unmounting a native container's root that takes its time, and that fails. What
//! the kernel does to a shim is provoked by strace.

use super::{Case, faults};
use crate::suites::lifecycle::shims;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use wisp_tests::Test;
use wisp_tests::api::Client;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    faults(&[
        (
            "while one root is unmounted slowly, the pod's others are served",
            slow,
        ),
        (
            "a root that cannot be unmounted is reported and goes",
            fails,
        ),
    ])
}

/// A process whose calls of umount2 are tampered with.
struct Tampered(Child);

impl Tampered {
    /// `how` is what strace calls an injection.
    fn with(test: &Test<'_>, process: i32, how: &str) -> Result<Self> {
        let log = test.dir().join("strace");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-e", "trace=umount2", "-e"])
            .arg(format!("inject=umount2:{how}"))
            .args(["-p", &process.to_string()])
            .stderr(fs::File::create(&log)?)
            .stdin(Stdio::null());
        let strace = Self(strace.spawn().context("start strace")?);
        let attached = wait::until(PATIENCE, || {
            fs::read_to_string(&log)
                .ok()?
                .contains("attached")
                .then_some(())
        });
        attached.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(strace)
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // So that it lets go of the process.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let _ = self.0.wait();
    }
}

/// A pod's daemon and two containers: a native one that has ended, and a guest.
fn pod<'t, 'n>(test: &'t Test<'n>) -> Result<(i32, String, Running<'t, 'n>)> {
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    let pod = "pod";
    test.know(pod);
    let member = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into();
    };
    let guest = test
        .run(&tour)
        .args(&["sleep", "1000000"])
        .create_with(member)?;
    let guest = Running::start(test, &guest)?;
    let native = test.run(&busybox).args(&["true"]).create_with(member)?;
    let api = test.api()?;
    api.create(&native, &wisp_tests::api::Streams::default())?;
    api.start(&native)?;
    api.wait(&native)?;
    let shims = shims(test);
    ensure!(shims.len() == 1, "{shims:?}");
    Ok((shims[0].pid, native, guest))
}

/// Whether a thread of the process is held by its tracer.
fn held(process: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let syscall: PathBuf = task.path().join("syscall");
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('t'))
            && fs::read_to_string(syscall).is_ok_and(|text| {
                text.split(' ').next() == Some(&nix::libc::SYS_umount2.to_string())
            })
    })
}

fn slow(test: &Test<'_>) -> Result<()> {
    let (daemon, native, guest) = pod(test)?;
    let api = test.api()?;
    let tampered = Tampered::with(test, daemon, "delay_enter=6s")?;
    thread::scope(|scope| {
        let (answer, answered) = mpsc::channel();
        let (node, namespace, id) = (test.node, test.namespace(), &native);
        scope.spawn(move || {
            let deleted = Client::connect(node, namespace).and_then(|client| client.delete(id));
            let _ = answer.send(deleted);
        });
        wait::until(PATIENCE, || held(daemon).then_some(())).context("nothing is unmounted")?;
        api.state(&guest.id)?;
        api.metrics(&guest.id)?;
        ensure!(answered.try_recv().is_err(), "it was no slow unmounting");
        ensure!(answered.recv().context("no answer")?? == 0, "not 0");
        Ok(())
    })?;
    drop(tampered);
    test.ctr_ok(&["container", "rm", &native])?;
    ensure!(guest.end_by(Signal::SIGKILL)?.code == 137, "not 137");
    Ok(())
}

fn fails(test: &Test<'_>) -> Result<()> {
    let (daemon, native, guest) = pod(test)?;
    let api = test.api()?;
    let tampered = Tampered::with(test, daemon, "error=EIO")?;
    // containerd has nobody to tell, and tries it itself next.
    ensure!(api.delete(&native)? == 0, "not 0");
    drop(tampered);
    let said = wait::until(PATIENCE, || {
        let log = test.node.log_about(test.namespace());
        let warning = log
            .lines()
            .find(|line| line.contains("level=warn") && line.contains("rootfs"))?;
        Some(warning.to_owned())
    });
    let said = said.context("nobody is told")?;
    ensure!(said.contains(&native), "{said}");
    test.ctr_ok(&["container", "rm", &native])?;
    api.state(&guest.id)?;
    ensure!(guest.end_by(Signal::SIGKILL)?.code == 137, "not 137");
    Ok(())
}
