//! A task's way from Create to Delete.

use super::Case;
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::Signal;
use std::time::Duration;
use wisp_tests::api::Streams;
use wisp_tests::events::Events;
use wisp_tests::processes::{self, Process};
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, command};

pub fn cases() -> Vec<Case> {
    super::cases(
        "lifecycle",
        &[
            (
                "events come in order with the task's pid and exit code",
                events,
            ),
            (
                "a Wasm guest's events are those of any container",
                wasm_events,
            ),
            ("states follow the calls", states),
            (
                "a task killed before it was started ends and goes",
                killed_unstarted,
            ),
            (
                "a task that runs cannot be deleted and one that ended cannot be killed",
                refusals,
            ),
            ("killing all reaches a grandchild", kill_all),
            (
                "containers of one pod share a shim, and it goes with the last",
                pod,
            ),
            (
                "the same container starts again after its task was deleted",
                again,
            ),
            ("fifty containers started at once all run and all go", fifty),
        ],
    )
}

fn ordered(test: &Test<'_>, id: &str, code: u32) -> Result<()> {
    let api = test.api()?;
    let events = Events::subscribe(test.node, test.namespace())?;
    let pid = api.create(id, &Streams::default())?;
    ensure!(
        api.start(id)? == pid,
        "start answers another pid than create"
    );
    ensure!(api.wait(id)? == code, "unexpected exit code");
    ensure!(api.delete(id)? == code, "unexpected exit code from delete");
    let seen = events.until_deleted(id)?;
    let told: Vec<_> = seen
        .iter()
        .map(|event| (event.topic.as_str(), event.pid, event.exit))
        .collect();
    let expected = [
        ("/tasks/create", pid, None),
        ("/tasks/start", pid, None),
        ("/tasks/exit", pid, Some(code)),
        ("/tasks/delete", pid, Some(code)),
    ];
    ensure!(told == expected, "events: {seen:#?}");
    test.ctr_ok(&["container", "rm", id]).map(drop)
}

fn events(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = test.run(&image).args(&["sh", "-c", "exit 9"]).create()?;
    ordered(test, &id, 9)
}

fn wasm_events(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["exit", "9"]).create()?;
    ordered(test, &id, 9)
}

fn states(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = test.run(&image).args(&["sleep", "1000"]).create()?;
    let api = test.api()?;
    let pid = api.create(&id, &Streams::default())?;
    ensure!(
        api.state(&id)? == (Status::Created, pid, 0),
        "{:?}",
        api.state(&id)?
    );
    api.start(&id)?;
    ensure!(
        api.state(&id)? == (Status::Running, pid, 0),
        "{:?}",
        api.state(&id)?
    );
    ensure!(api.pids(&id)? == [pid], "{:?}", api.pids(&id)?);
    api.kill(&id, Signal::SIGKILL as i32, false)?;
    ensure!(api.wait(&id)? == 137, "not 137");
    let (status, _, code) = api.state(&id)?;
    ensure!(
        (status, code) == (Status::Stopped, 137),
        "{status:?} {code}"
    );
    // Waiting for what has ended already answers at once.
    ensure!(api.wait(&id)? == 137, "not 137 the second time");
    ensure!(api.delete(&id)? == 137, "not 137 from delete");
    ensure!(api.state(&id).is_err(), "a deleted task has a state");
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn killed_unstarted(test: &Test<'_>) -> Result<()> {
    for (image, args) in [
        (test.busybox()?, ["sleep", "1000"]),
        (test.image("tour")?, ["sleep", "1000000"]),
    ] {
        let id = test.run(&image).args(&args).create()?;
        let api = test.api()?;
        api.create(&id, &Streams::default())?;
        api.kill(&id, Signal::SIGKILL as i32, false)?;
        ensure!(api.wait(&id)? == 137, "{image}: not 137");
        ensure!(api.delete(&id)? == 137, "{image}: not 137 from delete");
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}

fn refusals(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    let api = test.api()?;
    let error = api
        .delete(&running.id)
        .err()
        .context("deleted while it runs")?;
    ensure!(format!("{error:#}").contains("running"), "{error:#}");
    ensure!(api.start(&running.id).is_err(), "started twice");
    ensure!(
        api.create(&running.id, &Streams::default()).is_err(),
        "created twice"
    );
    running.kill(Signal::SIGKILL)?;
    running.wait()?;
    let error = running
        .kill(Signal::SIGTERM)
        .err()
        .context("killed after its end")?;
    ensure!(format!("{error:#}").contains("NotFound"), "{error:#}");
    running.finish().map(drop)
}

fn kill_all(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    // Without a pid namespace of its own a child outlives the first process.
    let id = test
        .run(&image)
        .args(&["sh", "-c", "sleep 1000 & echo started; wait"])
        .create_with(|spec| {
            if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "pid");
            }
        })?;
    let running = Running::start(test, &id)?;
    running.stdout.until("started", PATIENCE)?;
    let pids = test.api()?.pids(&id)?;
    ensure!(pids.len() == 2, "{pids:?}");
    test.api()?.kill(&id, Signal::SIGKILL as i32, true)?;
    ensure!(running.finish()?.code == 137, "not 137");
    Ok(())
}

/// The daemons of the test's namespace.
pub fn shims(test: &Test<'_>) -> Vec<Process> {
    processes::all()
        .into_iter()
        .filter(|process| process.line.contains("containerd-shim-wisp-v1"))
        .filter(|process| process.line.contains(test.namespace()))
        .collect()
}

fn pod(test: &Test<'_>) -> Result<()> {
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    let pod = "pod";
    test.know(pod);
    let member = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into();
    };
    let sandbox = test
        .run(&busybox)
        .args(&["sleep", "1000"])
        .create_with(member)?;
    let sandbox = Running::start(test, &sandbox)?;
    let first = shims(test);
    ensure!(first.len() == 1, "{first:?}");
    let guest = test
        .run(&tour)
        .args(&["sleep", "1000000"])
        .create_with(member)?;
    let guest = Running::start(test, &guest)?;
    guest.stdout.until("sleeping", PATIENCE)?;
    let third = test
        .run(&busybox)
        .args(&["echo", "third"])
        .create_with(member)?;
    let third = Running::start(test, &third)?.finish()?;
    ensure!(third.code == 0 && third.out() == "third\n", "{third:?}");
    ensure!(shims(test) == first, "{:?} are not {first:?}", shims(test));

    // The pod's first container may go before the others.
    ensure!(sandbox.end_by(Signal::SIGKILL)?.code == 137, "the sandbox");
    ensure!(
        shims(test) == first,
        "the shim went with the first container"
    );
    ensure!(guest.end_by(Signal::SIGTERM)?.code == 143, "the guest");
    let gone = wait::until(PATIENCE, || shims(test).is_empty().then_some(()));
    gone.context("the shim outlives its last container")
}

fn again(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let id = test.run(&image).create()?;
    for _ in 0..2 {
        let ended = test.ctr(&["task", "start", &id])?;
        ensure!(
            ended.code == 0 && ended.out().contains("hello"),
            "{ended:?}"
        );
        let _ = test.ctr(&["task", "rm", &id]);
        // A second shim for the container must not meet the first one's end.
        let gone = wait::until(PATIENCE, || shims(test).is_empty().then_some(()));
        gone.context("the shim outlives its task")?;
    }
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn fifty(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let commands: Vec<_> = (0..50).map(|_| test.run(&image).command()).collect();
    let threads: Vec<_> = commands
        .into_iter()
        .map(|mut ctr| {
            std::thread::spawn(move || command::run(&mut ctr, Vec::new(), Duration::from_secs(180)))
        })
        .collect();
    for thread in threads {
        let ended = thread.join().ok().context("a thread panicked")??;
        ensure!(ended.code == 0, "{ended:?}");
        ensure!(ended.out() == "hello from a component\n", "{ended:?}");
    }
    Ok(())
}
