//! `wisp node` killed on a node of systemd's: the next run goes on, or back.

use super::Case;
use crate::machine::{PATIENCE, Subject, files, is_configured, same};
use anyhow::{Context, Result, ensure};
use wisp_tests::run::Ended;
use wisp_tests::wait;

pub fn cases() -> Vec<Case> {
    super::cases(
        "node",
        &[
            (
                "killed while it installs, it goes on or back",
                while_it_installs,
            ),
            ("killed while it goes, it goes on", while_it_goes),
        ],
    )
}

/// Succeeds in the end: what was killed may have left systemd restarting
/// containerd, which then does not answer for a moment.
fn in_the_end(subject: &Subject<'_>, arguments: &[&str]) -> Result<Ended> {
    let mut last = None;
    let ended = wait::until(PATIENCE, || {
        let ended = subject.wisp(arguments).ok()?;
        let done = ended.code == 0;
        last = Some(ended.err());
        done.then_some(ended)
    });
    ended.with_context(|| format!("wisp node {arguments:?}: {last:?}"))
}

fn while_it_installs(subject: &Subject<'_>) -> Result<()> {
    let before = files()?;
    for (step, forth) in [
        ("copy the programs", false),
        ("change the configuration", true),
        ("restart containerd", false),
        ("run a container", false),
    ] {
        subject.killed_at(step, &["install"]).context(step)?;
        if forth {
            in_the_end(subject, &["install"]).context(step)?;
            subject.reconnect()?;
            ensure!(subject.has_handler()?, "{step}: no handler");
            let verified = subject.wisp(&["verify"])?;
            ensure!(verified.code == 0, "{step}: {}", verified.err());
        }
        in_the_end(subject, &["uninstall", "--wait", "60"]).context(step)?;
        same(&before, &files()?).context(step)?;
        subject.reconnect()?;
        ensure!(!subject.has_handler()?, "{step}: a handler");
    }
    Ok(())
}

fn while_it_goes(subject: &Subject<'_>) -> Result<()> {
    let before = files()?;
    for step in ["restart containerd", "remove the programs"] {
        subject.install()?;
        ensure!(is_configured(), "{step}: not installed");
        let waits = ["uninstall", "--wait", "60"];
        subject.killed_at(step, &waits).context(step)?;
        in_the_end(subject, &waits).context(step)?;
        same(&before, &files()?).context(step)?;
        subject.reconnect()?;
        ensure!(!subject.has_handler()?, "{step}: a handler");
    }
    Ok(())
}
