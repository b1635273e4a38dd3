//! A daemon or a guest that is killed or stopped from outside.

use super::{Case, faults};
use crate::suites::lifecycle::shims;
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wisp_tests::Test;
use wisp_tests::events::Events;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    faults(&[
        ("a shim killed by SIGKILL is cleaned up after", native),
        (
            "a shim killed with its Wasm guest is cleaned up after",
            wasm,
        ),
        (
            "a guest that the host kills ends with 137",
            killed_from_outside,
        ),
        (
            "a container that SIGSTOP has stopped is killed like any other",
            stopped,
        ),
    ])
}

fn native(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    kill_shim_under(test, running)
}

fn wasm(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["spin"]).start()?;
    running.stdout.until("spinning", PATIENCE)?;
    kill_shim_under(test, running)
}

fn kill_shim_under(test: &Test<'_>, running: Running<'_, '_>) -> Result<()> {
    let shims = shims(test);
    ensure!(shims.len() == 1, "{shims:?}");
    let id = running.id.clone();
    let events = Events::subscribe(test.node, test.namespace())?;
    kill(Pid::from_raw(shims[0].pid), Signal::SIGKILL)?;
    // containerd runs `delete` and tells of the end.
    let seen = events.until_deleted(&id)?;
    ensure!(
        seen.iter()
            .any(|event| event.topic == "/tasks/exit" && event.exit == Some(137)),
        "events: {seen:#?}"
    );
    // The container goes in any case; its task is gone already.
    let removed = wait::until(PATIENCE, || {
        let _ = test.ctr(&["task", "rm", "-f", &id]);
        let said = test.ctr(&["container", "rm", &id]).ok()?;
        (said.code == 0).then_some(())
    });
    removed.context("the container cannot be removed")
}

fn killed_from_outside(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["spin"]).start()?;
    kill(Pid::from_raw(i32::try_from(running.pid)?), Signal::SIGKILL)?;
    ensure!(running.finish()?.code == 137, "not 137");
    Ok(())
}

fn stopped(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    for (image, args) in [
        (test.busybox()?, ["sleep", "1000"]),
        (test.image("tour")?, ["sleep", "1000000"]),
    ] {
        for end in [Signal::SIGKILL, Signal::SIGTERM] {
            // The first process of a pid namespace has no default actions, so
            // that a shell that would only sleep takes no SIGTERM.
            if end == Signal::SIGTERM && args[1] == "1000" {
                continue;
            }
            let running = test.run(&image).args(&args).start()?;
            running.kill(Signal::SIGSTOP)?;
            until_state(running.pid, 'T')?;
            // To containerd a stopped program runs.
            let state = api.state(&running.id)?;
            ensure!(state == (Status::Running, running.pid, 0), "{state:?}");
            ensure!(api.pids(&running.id)? == [running.pid]);
            ensure!(api.delete(&running.id).is_err(), "deleted while it runs");
            running.kill(end)?;
            if end == Signal::SIGTERM {
                running.kill(Signal::SIGCONT)?;
            }
            let ended = running.finish()?;
            ensure!(ended.code == 128 + end as i32, "{image}: {ended:?}");
        }
    }
    Ok(())
}

/// Waits until a process is in a state as `/proc` shows it.
fn until_state(pid: u32, wanted: char) -> Result<()> {
    wait::until(PATIENCE, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        (state == wanted).then_some(())
    })
    .with_context(|| format!("process {pid} is never in state {wanted}"))
}
