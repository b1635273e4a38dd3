//! What does not work on a node of systemd's leaves it as it was.

use super::Case;
use crate::machine::{PATIENCE, Subject, files, same};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use wisp_tests::unit::CONFIG;
use wisp_tests::wait;

pub fn cases() -> Vec<Case> {
    super::cases(
        "node",
        &[
            (
                "a unit that does not come up with it comes back without it",
                rolled_back,
            ),
            ("a shim that runs nothing is taken back", no_container_runs),
            (
                "a configuration that cannot be read is named and left alone",
                unreadable,
            ),
        ],
    )
}

fn rolled_back(subject: &Subject<'_>) -> Result<()> {
    let unit = subject.unit()?;
    let native = subject.pod("native").runtime("runc").run()?;
    let old = native
        .container("old", &subject.test.busybox()?)
        .args(&["sleep", "1000000"])
        .start()?;
    let pid = old.pid()?;
    let first = unit.invocation()?;
    let settings = unit.with_settings(
        "[Service]\nExecStartPre=/bin/sh -c '! grep -rq containerd-shim-wisp /etc/containerd'\n",
    )?;
    let before = files()?;
    let failed = subject.wisp(&["install"])?;
    ensure!(failed.code == 1, "{failed:?}");
    for says in ["does not restart", "is as it was before"] {
        ensure!(failed.err().contains(says), "{}", failed.err());
    }
    ensure!(
        !failed.err().contains("does not come back"),
        "{}",
        failed.err()
    );
    same(&before, &files()?)?;
    subject.reconnect()?;
    ensure!(unit.invocation()? != first, "the unit was not restarted");
    ensure!(!subject.has_handler()?, "CRI clients see a handler wisp");
    let alive = wait::until(PATIENCE, || old.exec(&["echo", "alive"]).ok());
    let alive = alive.context("what ran before cannot be reached")?;
    ensure!((alive.0, alive.1.as_str()) == (0, "alive\n"), "{alive:?}");
    ensure!(old.pid()? == pid, "it is another");
    drop(settings);
    native.remove()
}

fn no_container_runs(subject: &Subject<'_>) -> Result<()> {
    let before = files()?;
    let dir = subject.other_build()?;
    let version = env!("CARGO_PKG_VERSION");
    let shim = dir.join("containerd-shim-wisp-v1");
    fs::remove_file(&shim)?;
    fs::write(
        &shim,
        format!("#!/bin/sh\n[ \"$1\" = -v ] && exec echo 'Version: {version}'\necho no; exit 3\n"),
    )?;
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755))?;
    let failed = subject.wisp_in(&dir, &["install"])?;
    ensure!(failed.code == 1, "{failed:?}");
    for says in ["no container runs by wisp", "is as it was before"] {
        ensure!(failed.err().contains(says), "{}", failed.err());
    }
    same(&before, &files()?)?;
    subject.reconnect()?;
    ensure!(!subject.has_handler()?, "CRI clients see a handler wisp");
    Ok(())
}

fn unreadable(subject: &Subject<'_>) -> Result<()> {
    let unit = subject.unit()?;
    let first = unit.invocation()?;
    let original = fs::read(CONFIG)?;
    fs::write(CONFIG, "version = 2\n[plugins\n")?;
    let before = files()?;
    let failed = subject.wisp(&["install"]);
    let after = files();
    fs::write(CONFIG, original)?;
    let failed = failed?;
    ensure!(
        failed.code == 1 && failed.err().contains(CONFIG),
        "{failed:?}"
    );
    same(&before, &after?)?;
    ensure!(unit.invocation()? == first, "restarted for nothing");
    Ok(())
}
