//! containerd is upgraded from 1.6 to 2.1 under wisp.

use super::Case;
use crate::machine::{Subject, is_configured};
use anyhow::{Result, ensure};
use std::fs;
use wisp_tests::Version;
use wisp_tests::unit::CONFIG;

pub fn cases() -> Vec<Case> {
    let tests: &[(_, super::Body)] = &[(
        "containerd is upgraded under it, and it goes without a trace",
        upgraded,
    )];
    let mut cases = super::cases("node", tests);
    for case in &mut cases {
        case.on = |version| version == Version::V1_6;
    }
    cases
}

fn upgraded(subject: &Subject<'_>) -> Result<()> {
    let (test, unit) = (&subject.test, subject.unit()?);
    subject.install()?;
    let pod = subject.pod("guest").run()?;
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "1000000"])
        .start()?;
    guest.says("sleeping")?;
    let pid = guest.pid()?;
    unit.become_version(Version::V2_1)?;
    subject.reconnect()?;
    ensure!(guest.pid()? == pid, "the guest was replaced");

    // As a runtime of 1.6 it works in 2.1, and then it becomes one of 2.1.
    let verified = subject.wisp(&["verify"])?;
    ensure!(verified.code == 0, "{}", verified.err());
    let again = subject.install()?;
    ensure!(
        again.out().contains("has the runtime now"),
        "{}",
        again.out()
    );
    ensure!(
        fs::read_to_string(CONFIG)?.contains("runtime_type = \"io.containerd.wisp.v1\""),
        "the type is a path"
    );
    ensure!(guest.pid()? == pid, "the guest was replaced");
    let _ = guest.stop(0);
    pod.remove()?;
    let gone = subject.wisp(&["uninstall", "--wait", "60"])?;
    ensure!(gone.code == 0, "{}", gone.err());
    ensure!(!is_configured(), "it is configured");
    subject.reconnect()
}
