//! containerd dies and comes back while containers run.

use super::{Case, faults};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use wisp_tests::api::Client;
use wisp_tests::images::Images;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Containerd, Test};

pub fn cases() -> Vec<Case> {
    faults(&[
        (
            "a guest outlives a crash of containerd, and nothing it says is lost",
            native_writes,
        ),
        (
            "what Wasm guests say and how they end while containerd is down is not lost",
            wasm_writes,
        ),
    ])
}

/// A directory of the test's as a volume.
fn volume(test: &Test<'_>, name: &str, target: &str) -> Result<(PathBuf, String)> {
    let dir = test.dir().join(name);
    fs::create_dir(&dir)?;
    let mount = format!(
        "type=bind,src={},dst={target},options=rbind:rw",
        dir.display()
    );
    Ok((dir, mount))
}

fn native_writes(shared: &Test<'_>) -> Result<()> {
    // Nobody else's containerd.
    let node = Containerd::start(shared.node.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let image = test.busybox()?;
    let script = "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo line $n; sleep 0.01; done; echo last $n";
    let (stop, mount) = volume(&test, "tmp", "/tmp")?;
    let run = test.run(&image).flags(&["--mount", &mount]);
    let running = run.args(&["sh", "-c", script]).start()?;
    let guest = test.image("tour")?;
    let guest = test.run(&guest).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("line 5\n", PATIENCE)?;
    node.crash_and_restart()?;
    fs::write(stop.join("stop"), "")?;

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

/// Lines that are told apart.
fn lines(from: usize, to: usize) -> String {
    (from..=to).map(|n| format!("line {n}\n")).collect()
}

/// Replaces a file at once, so that its reader sees it whole.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, path)?)
}

fn wasm_writes(shared: &Test<'_>) -> Result<()> {
    let node = Containerd::start(shared.node.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let image = test.image("tour")?;
    let (dir, mount) = volume(&test, "data", "/data")?;
    // `tour watch` says what its file has whenever that is new.
    let start = |file: &str, last: &str| -> Result<Running<'_, '_>> {
        fs::write(dir.join(file), lines(1, 10))?;
        let running = test
            .run(&image)
            .flags(&["--mount", &mount])
            .args(&["watch", &format!("/data/{file}"), last])
            .start()?;
        running
            .stdout
            .until("line 10\n", PATIENCE)
            .with_context(|| String::from_utf8_lossy(&running.stderr.so_far()).into_owned())?;
        Ok(running)
    };
    let lasting = start("lasting", "the end")?;
    let last = lines(501, 900);
    let ending = start("ending", last.trim_end())?;

    let down = node.crash()?;
    for (from, to) in [(11, 300), (301, 500)] {
        for (file, guest) in [("lasting", &lasting), ("ending", &ending)] {
            replace(&dir.join(file), &lines(from, to))?;
            guest.stdout.until(&format!("line {to}\n"), PATIENCE)?;
        }
    }
    replace(&dir.join("ending"), &last)?;
    ending.stdout.until("line 900\n", PATIENCE)?;
    let process = Path::new("/proc").join(ending.pid.to_string());
    wait::until(PATIENCE, || (!process.exists()).then_some(())).context("the guest goes on")?;
    down.restart()?;

    // It knows what has become of each.
    let listed = test.ctr_ok(&["task", "ls"])?.out();
    let mut listed: Vec<String> = listed
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    listed.sort();
    let expected = [
        format!("{} {} RUNNING", lasting.id, lasting.pid),
        format!("{} {} STOPPED", ending.id, ending.pid),
    ];
    ensure!(listed == expected, "{listed:?} instead of {expected:?}");
    let after = Client::connect(&node, test.namespace())?;
    ensure!(after.wait(&ending.id)? == 0, "not 0");
    ensure!(after.delete(&ending.id)? == 0, "not 0 from delete");
    let said = ending.stdout.to_end(PATIENCE)?;
    ensure!(
        said == lines(1, 900).as_bytes(),
        "{}",
        String::from_utf8_lossy(&said)
    );

    // The other one goes on as if nothing had been.
    replace(&dir.join("lasting"), &lines(501, 510))?;
    lasting.stdout.until("line 510\n", PATIENCE)?;
    replace(&dir.join("lasting"), "the end\n")?;
    ensure!(after.wait(&lasting.id)? == 0, "not 0");
    ensure!(after.delete(&lasting.id)? == 0, "not 0 from delete");
    let said = lasting.stdout.to_end(PATIENCE)?;
    let expected = format!("{}the end\n", lines(1, 510));
    ensure!(
        said == expected.as_bytes(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    test.ctr_ok(&["container", "rm", &lasting.id, &ending.id])?;
    test.nothing_left()
}
