//! What is taken from under a container, and what does not let go of it.

use super::{Case, faults};
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use wisp_tests::run::Running;
use wisp_tests::{Test, cgroups, leaks};

pub fn cases() -> Vec<Case> {
    faults(&[
        (
            "a root file system that somebody is in is let go of",
            busy_root,
        ),
        (
            "a bundle that somebody has removed is no obstacle to the end",
            no_bundle,
        ),
        (
            "a cgroup that somebody has removed is no obstacle to the end",
            no_cgroup,
        ),
    ])
}

/// A running container of either kind.
fn both<'t, 'n>(test: &'t Test<'n>) -> Result<[Running<'t, 'n>; 2]> {
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    Ok([
        test.run(&busybox).args(&["sleep", "1000"]).start()?,
        test.run(&tour).args(&["sleep", "1000000"]).start()?,
    ])
}

fn bundle(test: &Test<'_>, id: &str) -> PathBuf {
    test.node
        .state()
        .join("io.containerd.runtime.v2.task")
        .join(test.namespace())
        .join(id)
}

/// A process of the host that is somewhere.
struct Holder(Child);

impl Holder {
    fn at(path: &PathBuf) -> Result<Self> {
        let mut sleep = Command::new("sleep");
        sleep.arg("1000").current_dir(path).stdin(Stdio::null());
        Ok(Self(sleep.spawn()?))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn busy_root(test: &Test<'_>) -> Result<()> {
    for running in both(test)? {
        let root = bundle(test, &running.id).join("rootfs");
        // A mount that nobody told the shim of makes it busy, too.
        let native = root.join("tmp").exists();
        if native {
            let none: Option<&str> = None;
            mount(
                Some("none"),
                &root.join("tmp"),
                Some("tmpfs"),
                MsFlags::empty(),
                none,
            )?;
        }
        let holder = Holder::at(&root)?;
        let ended = running.end_by(Signal::SIGKILL)?;
        ensure!(ended.code == 137, "{ended:?}");
        ensure!(!root.exists(), "{} is left", root.display());
        drop(holder);
    }
    Ok(())
}

fn no_bundle(test: &Test<'_>) -> Result<()> {
    for running in both(test)? {
        let bundle = bundle(test, &running.id);
        // Whoever removes directories has to unmount what is in them first.
        let _ = umount2(&bundle.join("rootfs"), MntFlags::MNT_DETACH);
        // containerd finds its own other directory by a link in there.
        fs::remove_dir_all(fs::read_link(bundle.join("work"))?)?;
        fs::remove_dir_all(&bundle)?;
        let api = test.api()?;
        let state = api.state(&running.id)?;
        ensure!(state == (Status::Running, running.pid, 0), "{state:?}");
        ensure!(api.pids(&running.id)? == [running.pid]);
        let ended = running.end_by(Signal::SIGKILL)?;
        ensure!(ended.code == 137, "{ended:?}");
    }
    Ok(())
}

fn no_cgroup(test: &Test<'_>) -> Result<()> {
    if cgroups::systemd() {
        // It is systemd that has made it, and it keeps its own books.
        return Ok(());
    }
    for all in [false, true] {
        for running in both(test)? {
            let own: Vec<_> = leaks::cgroups(test.namespace())
                .into_iter()
                .filter(|path| path.ends_with(&running.id))
                .collect();
            ensure!(!own.is_empty(), "no cgroup of {}", running.id);
            for group in own {
                let root = match cgroups::unified() {
                    true => PathBuf::from(cgroups::MOUNT),
                    false => {
                        let name = group.strip_prefix(cgroups::MOUNT)?.iter().next();
                        PathBuf::from(cgroups::MOUNT).join(name.context("a hierarchy")?)
                    }
                };
                fs::write(root.join("cgroup.procs"), running.pid.to_string())?;
                fs::remove_dir(&group)?;
            }
            let api = test.api()?;
            let state = api.state(&running.id)?;
            ensure!(state == (Status::Running, running.pid, 0), "{state:?}");
            // Nobody counts any more; that is said, and no end of the shim.
            ensure!(api.pids(&running.id)?.is_empty());
            let _ = api.metrics(&running.id);
            ensure!(api.pause(&running.id).is_err(), "paused without a freezer");
            api.kill(&running.id, Signal::SIGKILL as i32, all)?;
            let ended = running.finish()?;
            ensure!(ended.code == 137, "{ended:?}");
        }
    }
    Ok(())
}
