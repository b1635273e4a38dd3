//! Disks that are full and descriptors that run out.

use super::{Case, faults};
use crate::suites::lifecycle::shims;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use wisp_tests::api::{Client, Streams};
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, leaks};

pub fn cases() -> Vec<Case> {
    faults(&[
        (
            "a full disk under the cache costs a compilation and one warning",
            cache_disk_full,
        ),
        (
            "a shim without descriptors refuses, and recovers when there are some",
            no_descriptors,
        ),
    ])
}

/// A small file system of its own.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one of `size`, such as `64k`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(test: &Test<'_>, name: &str, size: &str) -> Result<Self> {
        let path = test.dir().join(name);
        fs::create_dir(&path)?;
        let options = format!("size={size},mode=0755");
        mount(
            Some("none"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it; nobody may be using it.
    ///
    /// # Errors
    /// When somebody is.
    pub fn remove(self) -> Result<()> {
        umount2(&self.path, MntFlags::empty())
            .with_context(|| format!("unmount {}", self.path.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

fn cache_disk_full(test: &Test<'_>) -> Result<()> {
    let disk = Disk::new(test, "cache", "64k")?;
    let image = test.image("hello")?;
    let config = format!(
        "[cache]\ndir = {:?}\nrun_dir = {:?}\n",
        disk.path().join("aot"),
        test.dir().join("known"),
    );
    for round in 1..=2 {
        let ended = test.run(&image).config(&config)?.ctr()?;
        ensure!(
            ended.code == 0 && ended.out() == "hello from a component\n",
            "{ended:?}"
        );
        let log = test.node.log_about(test.namespace());
        let warnings: Vec<_> = log
            .lines()
            .filter(|line| line.contains("level=warn") && line.contains("are not kept"))
            .collect();
        ensure!(warnings.len() == round, "round {round}: {warnings:#?}");
    }
    // No half of a file takes the room that there is.
    let left: Vec<_> = leaks::below(disk.path())
        .into_iter()
        .filter(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.len() > 4096 && meta.is_file())
        })
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    disk.remove()
}

/// Sets how many descriptors a process may have, in use and new ones.
fn allow(pid: i32, descriptors: usize) -> Result<()> {
    let said = Command::new("prlimit")
        .arg(format!("--pid={pid}"))
        .arg(format!("--nofile={descriptors}:"))
        .output()?;
    ensure!(
        said.status.success(),
        "prlimit: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    Ok(())
}

/// Creates `id`'s task. Without any descriptor the shim does not even accept the
/// connection that asks for it, and whoever asks waits for better times: then they
/// come.
fn create_when_heard(test: &Test<'_>, daemon: i32, id: &str) -> Result<Result<u32>> {
    let (node, namespace) = (test.node, test.namespace());
    thread::scope(|scope| {
        let (answer, answered) = mpsc::channel();
        scope.spawn(move || {
            let created = Client::connect(node, namespace)
                .and_then(|client| client.create(id, &Streams::default()));
            let _ = answer.send(created);
        });
        match answered.recv_timeout(Duration::from_secs(5)) {
            Ok(created) => Ok(created),
            Err(_) => {
                allow(daemon, 1024)?;
                answered.recv().context("no answer")
            }
        }
    })
}

fn no_descriptors(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    let pod = "pod";
    test.know(pod);
    let member = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into();
    };
    let first = test
        .run(&tour)
        .args(&["sleep", "1000000"])
        .create_with(member)?;
    let first = Running::start(test, &first)?;
    let shims = shims(test);
    ensure!(shims.len() == 1, "{shims:?}");
    let daemon = shims[0].pid;
    let used = fs::read_dir(format!("/proc/{daemon}/fd"))?.count();
    for (image, args) in [(&busybox, ["sleep", "1000"]), (&tour, ["sleep", "1000000"])] {
        for more in 0..12 {
            let id = test.run(image).args(&args).create_with(member)?;
            allow(daemon, used + more)?;
            let created = create_when_heard(test, daemon, &id)?;
            match created {
                Ok(_) => {
                    // Enough for it; then it works as ever.
                    let _ = api.start(&id);
                    let _ = api.kill(&id, Signal::SIGKILL as i32, false);
                    api.delete(&id).or_else(|_| {
                        api.wait(&id)?;
                        api.delete(&id)
                    })?;
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    ensure!(
                        ["Too many open files", "EMFILE", "os error 24"]
                            .iter()
                            .any(|words| text.contains(words)),
                        "with {more} descriptors to spare: {text}"
                    );
                }
            }
            test.ctr_ok(&["container", "rm", &id])?;
            // What runs is not concerned.
            api.state(&first.id)?;
            api.metrics(&first.id)?;
        }
    }
    // Who connects meanwhile waits, and the shim does nothing but wait, too.
    let used = fs::read_dir(format!("/proc/{daemon}/fd"))?.count();
    allow(daemon, used)?;
    let waiting: Vec<UnixStream> = (0..32)
        .map(|_| UnixStream::connect(leaks::socket(test.node, test.namespace(), pod)))
        .collect::<Result<_, _>>()?;
    let refused = |text: &str| {
        let log = test.node.log_about(test.namespace());
        log.lines().filter(|line| line.contains(text)).count()
    };
    wait::until(PATIENCE, || {
        (refused("a connection cannot be accepted yet") > 0).then_some(())
    })
    .context("the shim says nothing of connections that it cannot accept")?;
    api.metrics(&first.id)?;
    allow(daemon, 1024)?;
    wait::until(PATIENCE, || {
        (refused("connections are accepted again") > 0).then_some(())
    })
    .context("the shim does not accept connections any more")?;
    // In a busy loop it would have said so many thousand times.
    let said = refused("a connection cannot be accepted yet");
    ensure!(said < 100, "said {said} times");
    drop(waiting);
    let id = test.run(&busybox).args(&["true"]).create_with(member)?;
    let again = Running::start(test, &id)?.finish()?;
    ensure!(again.code == 0, "{again:?}");
    // As many descriptors as before: none was lost on the way.
    let left = wait::until(PATIENCE, || {
        let now = fs::read_dir(format!("/proc/{daemon}/fd")).ok()?.count();
        (now <= used + 1).then_some(())
    });
    left.with_context(|| {
        format!(
            "{used} descriptors became {}",
            fs::read_dir(format!("/proc/{daemon}/fd")).map_or(0, Iterator::count)
        )
    })?;
    ensure!(first.end_by(Signal::SIGTERM)?.code == 143, "not 143");
    Ok(())
}
