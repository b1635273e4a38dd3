//! Pause and Resume.

use super::Case;
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::Signal;
use std::time::Duration;
use wisp_tests::Test;
use wisp_tests::events::Events;
use wisp_tests::processes;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    super::cases(
        "pause",
        &[
            (
                "a paused guest uses no time and goes on after resume",
                stops_and_goes_on,
            ),
            ("a paused native program stops and goes on", native),
            ("pausing and resuming is announced", announced),
            ("SIGKILL ends a paused task", killed),
            ("SIGTERM reaches a paused task when it resumes", terminated),
            ("ctr pauses, lists and resumes a guest", by_ctr),
            ("a paused task cannot be deleted", not_deleted),
        ],
    )
}

fn start<'t, 'n>(test: &'t Test<'n>, wasm: bool) -> Result<Running<'t, 'n>> {
    if wasm {
        let image = test.image("tour")?;
        return test.run(&image).args(&["spin"]).start();
    }
    let image = test.busybox()?;
    let script = ["sh", "-c", "while :; do :; done"];
    test.run(&image).args(&script).start()
}

/// The processor time that a process has used, in ticks.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit(')').next().context("stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn stopped(test: &Test<'_>, wasm: bool) -> Result<()> {
    let running = start(test, wasm)?;
    let api = test.api()?;
    wait::until(PATIENCE, || {
        ticks(running.pid).ok().filter(|used| *used > 0)
    })
    .context("it does not run")?;
    api.pause(&running.id)?;
    let status = api.state(&running.id)?.0;
    ensure!(status == Status::Paused, "{status:?}");
    // Two looks at what does not move; no moment of it is timed.
    let before = ticks(running.pid)?;
    std::thread::sleep(Duration::from_millis(150));
    ensure!(ticks(running.pid)? == before, "it runs while it is paused");
    api.resume(&running.id)?;
    let status = api.state(&running.id)?.0;
    ensure!(status == Status::Running, "{status:?}");
    wait::until(PATIENCE, || {
        ticks(running.pid).ok().filter(|used| *used > before)
    })
    .context("it does not go on")?;
    ensure!(running.end_by(Signal::SIGKILL)?.code == 137, "not 137");
    Ok(())
}

fn stops_and_goes_on(test: &Test<'_>) -> Result<()> {
    stopped(test, true)
}

fn native(test: &Test<'_>) -> Result<()> {
    stopped(test, false)
}

fn announced(test: &Test<'_>) -> Result<()> {
    let running = start(test, true)?;
    let events = Events::subscribe(test.node, test.namespace())?;
    let (api, id) = (test.api()?, running.id.clone());
    api.pause(&id)?;
    api.resume(&id)?;
    running.end_by(Signal::SIGTERM)?;
    let seen = events.until_deleted(&id)?;
    let topics: Vec<_> = seen.iter().map(|event| event.topic.as_str()).collect();
    let expected = [
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    ensure!(topics == expected, "{seen:#?}");
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    for wasm in [true, false] {
        for all in [false, true] {
            let running = start(test, wasm)?;
            let api = test.api()?;
            api.pause(&running.id)?;
            api.kill(&running.id, Signal::SIGKILL as i32, all)?;
            ensure!(running.finish()?.code == 137, "wasm {wasm}, all {all}");
        }
    }
    Ok(())
}

fn terminated(test: &Test<'_>) -> Result<()> {
    let running = start(test, true)?;
    let api = test.api()?;
    api.pause(&running.id)?;
    api.kill(&running.id, Signal::SIGTERM as i32, false)?;
    let status = api.state(&running.id)?.0;
    ensure!(status == Status::Paused, "{status:?}");
    api.resume(&running.id)?;
    ensure!(running.finish()?.code == 143, "not 143");
    Ok(())
}

fn by_ctr(test: &Test<'_>) -> Result<()> {
    let running = start(test, true)?;
    test.ctr_ok(&["task", "pause", &running.id])?;
    let list = test.ctr_ok(&["task", "ls"])?.out();
    ensure!(list.contains("PAUSED"), "{list}");
    test.ctr_ok(&["task", "resume", &running.id])?;
    let list = test.ctr_ok(&["task", "ls"])?.out();
    ensure!(list.contains("RUNNING"), "{list}");
    running.end_by(Signal::SIGKILL).map(drop)
}

fn not_deleted(test: &Test<'_>) -> Result<()> {
    let running = start(test, true)?;
    let api = test.api()?;
    api.pause(&running.id)?;
    ensure!(api.delete(&running.id).is_err(), "deleted while paused");
    ensure!(
        processes::all()
            .iter()
            .any(|p| p.pid.unsigned_abs() == running.pid),
        "its process is gone"
    );
    api.resume(&running.id)?;
    ensure!(running.end_by(Signal::SIGKILL)?.code == 137, "not 137");
    Ok(())
}
