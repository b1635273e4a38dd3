//! `wisp node` on a node of systemd's: forth, further and back.

use super::Case;
use crate::machine::{PATIENCE, PROGRAMS, STATE, Subject, build_of, builds, is_configured};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use wisp_tests::unit::systemctl;
use wisp_tests::{paths, wait};

pub fn cases() -> Vec<Case> {
    super::cases(
        "node",
        &[
            (
                "it comes, is upgraded and goes, and pods live through the unit's restarts",
                comes_and_goes,
            ),
            (
                "without containerd nothing is done, and it says so",
                without_containerd,
            ),
        ],
    )
}

fn comes_and_goes(subject: &Subject<'_>) -> Result<()> {
    let (test, unit) = (&subject.test, subject.unit()?);
    let native = subject.pod("native").runtime("runc").run()?;
    let old = native
        .container("old", &test.busybox()?)
        .args(&["sleep", "1000000"])
        .start()?;
    let old_pid = old.pid()?;
    let refused = subject.pod("early").run();
    let refused = refused.err().context("there is no wisp yet")?;
    ensure!(format!("{refused:#}").contains("wisp"), "{refused:#}");
    ensure!(!subject.has_handler()?, "a handler of that name");

    let first = unit.invocation()?;
    subject.install()?;
    let second = unit.invocation()?;
    ensure!(first != second, "the unit was not restarted");
    ensure!(subject.has_handler()?, "CRI clients see no handler wisp");
    let pod = subject.pod("guest").run()?;
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "1000000"])
        .start()?;
    guest.says("sleeping")?;
    let build = build_of(guest.pid()?)?;
    ensure!(build.starts_with(PROGRAMS), "{}", build.display());

    let again = subject.install()?;
    ensure!(
        again.out().contains("had the runtime already"),
        "{}",
        again.out()
    );
    let verified = subject.wisp(&["verify"])?;
    ensure!(verified.code == 0, "{}", verified.err());
    ensure!(unit.invocation()? == second, "restarted for nothing");

    // Another build beside the first, which goes with the last that runs it.
    let other = subject.other_build()?;
    let upgraded = subject.wisp_in(&other, &["install"])?;
    ensure!(upgraded.code == 0, "{}", upgraded.err());
    ensure!(unit.invocation()? == second, "restarted for an upgrade");
    ensure!(builds().len() == 2, "{:?}", builds());
    ensure!(build_of(guest.pid()?)? == build, "the guest was replaced");
    let next_pod = subject.pod("next").run()?;
    let next = next_pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "1000000"])
        .start()?;
    next.says("sleeping")?;
    ensure!(build_of(next.pid()?)? != build, "the old build runs");
    let _ = guest.stop(0);
    pod.remove()?;
    let upgraded = subject.wisp_in(&other, &["install"])?;
    ensure!(upgraded.code == 0, "{}", upgraded.err());
    ensure!(builds().len() == 1, "{:?}", builds());

    // Not from under a pod, but after it.
    let busy = subject.wisp(&["uninstall"])?;
    ensure!(
        busy.code == 1 && busy.err().contains("still run"),
        "{busy:?}"
    );
    ensure!(is_configured() && subject.has_handler()?, "it went");
    let gone = std::thread::scope(|scope| -> Result<_> {
        let waits = scope.spawn(|| {
            let mut wisp = std::process::Command::new(paths::wisp());
            wisp.args(["node", "uninstall", "--wait", "600"]);
            wisp_tests::command::run(&mut wisp, Vec::new(), PATIENCE)
        });
        let _ = next.stop(0);
        next_pod.remove()?;
        waits.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })?;
    ensure!(gone.code == 0, "{}", gone.err());
    subject.reconnect()?;
    ensure!(unit.invocation()? != second, "the unit was not restarted");
    ensure!(!subject.has_handler()?, "CRI clients see a handler wisp");
    for place in [PROGRAMS, STATE] {
        ensure!(!Path::new(place).exists(), "{place} is left");
    }
    let none = subject.wisp(&["uninstall"])?;
    ensure!(none.code == 0 && none.out().contains("nothing"), "{none:?}");

    let alive = wait::until(PATIENCE, || old.exec(&["echo", "alive"]).ok());
    let alive = alive.context("what ran before cannot be reached")?;
    ensure!((alive.0, alive.1.as_str()) == (0, "alive\n"), "{alive:?}");
    ensure!(old.pid()? == old_pid, "it is another");
    native.remove()
}

fn without_containerd(subject: &Subject<'_>) -> Result<()> {
    systemctl(&["stop", "containerd.service"])?;
    let failed = subject.wisp(&["install"]);
    systemctl(&["start", "containerd.service"])?;
    subject.reconnect()?;
    let failed = failed?;
    ensure!(failed.code == 1, "{failed:?}");
    ensure!(
        failed.err().contains("start it, or name its socket"),
        "{}",
        failed.err()
    );
    ensure!(!is_configured(), "it is configured");
    Ok(())
}
