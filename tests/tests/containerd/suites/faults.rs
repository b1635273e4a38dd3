//! What happens when something dies: a guest, a shim, containerd, a client.

use super::Case;
use super::lifecycle::shims;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Stdio;
use std::time::Duration;
use wisp_tests::api::Client;
use wisp_tests::events::Events;
use wisp_tests::images::Images;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Containerd, Test};

pub fn cases() -> Vec<Case> {
    super::cases(
        "faults",
        &[
            ("a shim killed by SIGKILL is cleaned up after", shim_killed),
            (
                "a shim killed with its Wasm guest is cleaned up after",
                wasm_shim_killed,
            ),
            (
                "a guest that the host kills ends with 137",
                killed_from_outside,
            ),
            (
                "a guest outlives a crash of containerd, and nothing it says is lost",
                containerd_crashes,
            ),
            (
                "a start that its client gives up at any moment leaves nothing",
                cut_short,
            ),
        ],
    )
}

fn shim_killed(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    kill_shim_under(test, running)
}

fn wasm_shim_killed(test: &Test<'_>) -> Result<()> {
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

fn containerd_crashes(shared: &Test<'_>) -> Result<()> {
    // Nobody else's containerd.
    let node = Containerd::start(shared.node.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let image = test.busybox()?;
    let script = "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo line $n; sleep 0.01; done; echo last $n";
    let stop = test.dir().join("tmp");
    std::fs::create_dir(&stop)?;
    let mount = format!("type=bind,src={},dst=/tmp,options=rbind:rw", stop.display());
    let run = test.run(&image).flags(&["--mount", &mount]);
    let running = run.args(&["sh", "-c", script]).start()?;
    let guest = test.image("tour")?;
    let guest = test.run(&guest).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("line 5\n", PATIENCE)?;
    node.crash_and_restart()?;
    std::fs::write(stop.join("stop"), "")?;

    // Connections of before are gone with it.
    let after = Client::connect(&node, test.namespace())?;
    ensure!(after.wait(&running.id)? == 0, "not 0");
    let said = running.stdout.to_end(PATIENCE)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let count = said.lines().count() - 1;
    let expected: String = (1..=count).map(|n| format!("line {n}\n")).collect();
    ensure!(said == format!("{expected}last {count}\n"), "{said}");
    ensure!(after.delete(&running.id)? == 0, "not 0 from delete");
    after.kill(&guest.id, Signal::SIGTERM as i32, false)?;
    ensure!(
        after.wait(&guest.id)? == 143,
        "the guest does not end with 143"
    );
    after.delete(&guest.id)?;
    test.ctr_ok(&["container", "rm", &running.id, &guest.id])?;
    test.nothing_left()
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
        std::thread::sleep(Duration::from_millis(milliseconds));
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
