//! What comes between while a container is created or started.

use super::stall::Stall;
use super::{Case, faults};
use crate::suites::lifecycle::shims;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use wisp_tests::Test;
use wisp_tests::api::{Client, Streams, code};
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    faults(&[
        (
            "a start that its client gives up at any moment leaves nothing",
            cut_short,
        ),
        (
            "a creator that is killed is Create's error, and leaves nothing",
            creator_killed,
        ),
        (
            "a shim that is killed during Create takes all of it along",
            shim_killed,
        ),
        (
            "kill during Create finds no task, and Create completes",
            kill_during_create,
        ),
        ("Delete during Create cuts it short", delete_during_create),
        (
            "kill during Start ends the program, and Start says so",
            kill_during_start,
        ),
    ])
}

/// One that runs for long, of either kind.
fn both(test: &Test<'_>) -> Result<[(String, [&'static str; 2]); 2]> {
    Ok([
        (test.busybox()?, ["sleep", "1000"]),
        (test.image("tour")?, ["sleep", "1000000"]),
    ])
}

fn cut_short(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    for milliseconds in [20, 40, 60, 80, 100, 130, 160] {
        let id = test.run(&image).create()?;
        let mut start = test.node.ctr(test.namespace());
        let mut start = start
            .args(["task", "start", &id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Whatever this interrupts: the point is that there is no bad moment.
        thread::sleep(Duration::from_millis(milliseconds));
        let _ = kill(Pid::from_raw(i32::try_from(start.id())?), Signal::SIGINT);
        start.wait()?;
        let removed = wait::until(PATIENCE, || {
            let _ = test.ctr(&["task", "kill", "-s", "SIGKILL", &id]);
            let _ = test.ctr(&["task", "rm", "-f", &id]);
            let said = test.ctr(&["container", "rm", &id]).ok()?;
            (said.code == 0).then_some(())
        });
        removed.context("the container cannot be removed")?;
    }
    Ok(())
}

/// Runs `during` while the Create of `id` stands still; answers what Create did.
fn create_and(
    test: &Test<'_>,
    id: &str,
    during: impl FnOnce() -> Result<()>,
) -> Result<Result<u32>> {
    let (node, namespace) = (test.node, test.namespace());
    thread::scope(|scope| {
        let create =
            scope.spawn(|| Client::connect(node, namespace)?.create(id, &Streams::default()));
        let done = during();
        let created = create.join().ok().context("Create panicked");
        done?;
        created
    })
}

fn gone(pid: i32) -> Result<()> {
    wait::until(PATIENCE, || {
        (!Path::new("/proc").join(pid.to_string()).exists()).then_some(())
    })
    .with_context(|| format!("process {pid} is left"))
}

fn creator_killed(test: &Test<'_>) -> Result<()> {
    for (index, (image, args)) in both(test)?.iter().enumerate() {
        let stall = Stall::new(test, &format!("stall-{index}"))?;
        let id = test
            .run(image)
            .args(args)
            .create_with(|spec| stall.put(spec, "createRuntime"))?;
        let mut hook = 0;
        let created = create_and(test, &id, || {
            let stalled = stall.reached()?;
            hook = stalled.hook;
            Ok(kill(Pid::from_raw(stalled.creator), Signal::SIGKILL)?)
        })?;
        let error = created.err().context("created without a creator")?;
        ensure!(!format!("{error:#}").is_empty());
        gone(hook)?;
        ensure!(test.api()?.state(&id).is_err(), "a task is left");
        // It is no obstacle to the next one.
        stall.release()?;
        test.api()?.create(&id, &Streams::default())?;
        test.api()?.delete(&id)?;
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}

fn shim_killed(test: &Test<'_>) -> Result<()> {
    for (index, (image, args)) in both(test)?.iter().enumerate() {
        let stall = Stall::new(test, &format!("stall-{index}"))?;
        let id = test
            .run(image)
            .args(args)
            .create_with(|spec| stall.put(spec, "createRuntime"))?;
        let mut stalled = None;
        let created = create_and(test, &id, || {
            stalled = Some(stall.reached()?);
            let shims: Vec<_> = shims(test)
                .into_iter()
                .filter(|shim| shim.line.contains(" serve "))
                .collect();
            ensure!(shims.len() == 1, "{shims:?}");
            Ok(kill(Pid::from_raw(shims[0].pid), Signal::SIGKILL)?)
        })?;
        ensure!(created.is_err(), "created without a shim");
        // Nobody waits for its end any more, and it would be a guest by and by.
        let stalled = stalled.context("not stalled")?;
        gone(stalled.creator)?;
        stall.release()?;
        gone(stalled.hook)?;
        let removed = wait::until(PATIENCE, || {
            let _ = test.ctr(&["task", "rm", "-f", &id]);
            let said = test.ctr(&["container", "rm", &id]).ok()?;
            (said.code == 0).then_some(())
        });
        removed.context("the container cannot be removed")?;
    }
    Ok(())
}

fn kill_during_create(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    for (index, (image, args)) in both(test)?.iter().enumerate() {
        let stall = Stall::new(test, &format!("stall-{index}"))?;
        let id = test
            .run(image)
            .args(args)
            .create_with(|spec| stall.put(spec, "createRuntime"))?;
        create_and(test, &id, || {
            stall.reached()?;
            for answer in [
                code(&api.kill(&id, Signal::SIGKILL as i32, false)),
                code(&api.start(&id)),
                code(&api.state(&id)),
            ] {
                ensure!(answer == "NotFound", "answered with {answer}");
            }
            stall.release()
        })??;
        api.start(&id)?;
        api.kill(&id, Signal::SIGKILL as i32, false)?;
        ensure!(api.wait(&id)? == 137, "{image}: not 137");
        api.delete(&id)?;
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}

fn delete_during_create(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    for (index, (image, args)) in both(test)?.iter().enumerate() {
        let stall = Stall::new(test, &format!("stall-{index}"))?;
        let id = test
            .run(image)
            .args(args)
            .create_with(|spec| stall.put(spec, "createRuntime"))?;
        let mut hook = 0;
        let created = create_and(test, &id, || {
            hook = stall.reached()?.hook;
            let answer = code(&api.delete(&id));
            ensure!(answer == "NotFound", "answered with {answer}");
            Ok(())
        })?;
        ensure!(code(&created) == "NotFound", "{created:?}");
        gone(hook)?;
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}

fn kill_during_start(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["sleep", "1000000"]).create()?;
    let pid = api.create(&id, &Streams::default())?;
    // The process that waits for Start does not take it.
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGSTOP)?;
    let (node, namespace) = (test.node, test.namespace());
    let started = thread::scope(|scope| {
        let start = scope.spawn(|| Client::connect(node, namespace)?.start(&id));
        // The second one is refused at once or when the first one is through.
        let second = scope.spawn(|| Client::connect(node, namespace)?.start(&id));
        let asked = api.state(&id).and_then(|(_, found, _)| {
            ensure!(found == pid, "another process: {found}");
            api.kill(&id, Signal::SIGKILL as i32, false)
        });
        let answers = [start.join(), second.join()];
        asked.map(|()| answers.map(|answer| answer.map_err(|_| "panicked")))
    })?;
    for answer in started {
        let answer = answer.map_err(anyhow::Error::msg)?;
        ensure!(answer.is_err(), "a program that was killed has started");
    }
    ensure!(api.wait(&id)? == 137, "not 137");
    ensure!(api.delete(&id)? == 137, "not 137 from Delete");
    test.ctr_ok(&["container", "rm", &id])?;

    // A hook stands still after the program was started.
    for (index, (image, args)) in both(test)?.iter().enumerate() {
        let stall = Stall::new(test, &format!("stall-{index}"))?;
        let id = test
            .run(image)
            .args(args)
            .create_with(|spec| stall.put(spec, "poststart"))?;
        api.create(&id, &Streams::default())?;
        thread::scope(|scope| -> Result<()> {
            let start = scope.spawn(|| Client::connect(node, namespace)?.start(&id));
            stall.reached()?;
            let killed = api.kill(&id, Signal::SIGKILL as i32, false);
            let released = stall.release();
            start.join().ok().context("Start panicked")??;
            killed.and(released)
        })?;
        ensure!(api.wait(&id)? == 137, "{image}: not 137");
        ensure!(api.delete(&id)? == 137, "{image}: not 137 from Delete");
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}
