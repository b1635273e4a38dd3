//! The life of an executed process, whatever it runs.

use super::super::Body;
use super::{Added, execute, mixed, process, sleeping};
use anyhow::{Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::Write;
use wisp_tests::api::Streams;
use wisp_tests::events::Events;
use wisp_tests::fifo::{self, Reader};
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, processes, terminal};

pub fn cases() -> [(&'static str, Body); 8] {
    [
        ("exec has a terminal", with_terminal),
        ("processes are listed with their exec ids", listed),
        ("exec is announced from added to exit", announced),
        (
            "executed processes end with their container",
            ends_with_container,
        ),
        (
            "an executed process is killed and its container goes on",
            killed,
        ),
        ("a failed exec leaves nothing behind", leaves_nothing),
        ("many execs at once all run and all go", many),
        ("ctr executes, with and without a terminal", by_ctr),
    ]
}

fn with_terminal(test: &Test<'_>) -> Result<()> {
    let native_image = test.busybox()?;
    let native = test.run(&native_image).args(&["sleep", "1000"]).start()?;
    let wasm_image = mixed(test)?;
    let wasm = test.run(&wasm_image).args(&["sleep", "1000000"]).start()?;
    wasm.stdout.until("sleeping", PATIENCE)?;
    let shell = [
        "sh",
        "-c",
        "test -t 0 && stty size; read line; echo got $line; stty size",
    ];
    let busybox = [
        "busybox",
        "sh",
        "-c",
        "test -t 0 && busybox stty size; read line; \
                    echo got $line; busybox stty size",
    ];
    for (id, args) in [(&native.id, &shell[..]), (&wasm.id, &busybox[..])] {
        let stdin = test.dir().join(format!("{id}-keys"));
        let mut keys = fifo::writer(&stdin)?;
        let screen = Reader::new(&test.dir().join(format!("{id}-screen")))?;
        let exec = test.api()?.process(id, "tty");
        let streams = Streams {
            stdin: stdin.display().to_string(),
            stdout: screen.path(),
            terminal: true,
            ..Streams::default()
        };
        let mut spec = process(args);
        spec["consoleSize"] = json!({ "height": 30, "width": 100 });
        exec.add_with(&spec, &streams)?;
        exec.start()?;
        screen.until("30 100", PATIENCE)?;
        exec.resize(132, 43)?;
        keys.write_all(b"word\n")?;
        ensure!(exec.wait()? == 0, "not 0");
        let text = screen.to_end(PATIENCE)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(
            text.contains("got word") && text.contains("43 132"),
            "{text:?}"
        );
        exec.delete()?;
    }
    wasm.end_by(Signal::SIGTERM)?;
    native.end_by(Signal::SIGKILL).map(drop)
}

fn listed(test: &Test<'_>) -> Result<()> {
    let native_image = test.busybox()?;
    let native = test.run(&native_image).args(&["sleep", "1000"]).start()?;
    let wasm = sleeping(test)?;
    let sleep: [(&Running<'_, '_>, &[&str]); 2] = [
        (&native, &["sleep", "1000"]),
        (&wasm, &["/tour.wasm", "sleep", "1000000"]),
    ];
    for (running, args) in sleep {
        let added = Added::new(test, &running.id, "second", &process(args))?;
        let state = added.exec.state()?;
        ensure!(state == (Status::Created, 0, 0), "{state:?}");
        let pid = added.exec.start()?;
        let state = added.exec.state()?;
        ensure!(state == (Status::Running, pid, 0), "{state:?}");
        let mut seen = test.api()?.processes(&running.id)?;
        seen.sort();
        let mut expected = vec![(running.pid, None), (pid, Some("second".to_owned()))];
        expected.sort();
        ensure!(seen == expected, "{seen:?}");
        added.exec.kill(Signal::SIGKILL as i32)?;
        added.exec.wait()?;
        let (status, _, code) = added.exec.state()?;
        ensure!(
            (status, code) == (Status::Stopped, 137),
            "{status:?} {code}"
        );
        added.finish()?;
    }
    wasm.end_by(Signal::SIGTERM)?;
    native.end_by(Signal::SIGKILL).map(drop)
}

fn announced(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let events = Events::subscribe(test.node, test.namespace())?;
    let spec = process(&["/tour.wasm", "exit", "7"]);
    let added = Added::new(test, &running.id, "seven", &spec)?;
    let pid = added.exec.start()?;
    ensure!(added.finish()?.code == 7, "not 7");
    let id = running.id.clone();
    running.end_by(Signal::SIGTERM)?;
    let seen = events.until_deleted(&id)?;
    let told: Vec<_> = seen
        .iter()
        .map(|event| (event.topic.as_str(), event.exec.as_str(), event.exit))
        .collect();
    let expected = [
        ("/tasks/exec-added", "seven", None),
        ("/tasks/exec-started", "seven", None),
        ("/tasks/exit", "seven", Some(7)),
        ("/tasks/exit", "", Some(143)),
        ("/tasks/delete", "", Some(143)),
    ];
    ensure!(told == expected, "{seen:#?}");
    ensure!(seen[1].pid == pid && seen[2].pid == pid, "{seen:#?}");
    Ok(())
}

fn ends_with_container(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    for shared in [false, true] {
        let id = test
            .run(&image)
            .args(&["sleep", "1000000"])
            .create_with(|spec| {
                if let (true, Some(namespaces)) =
                    (shared, spec["linux"]["namespaces"].as_array_mut())
                {
                    namespaces.retain(|namespace| namespace["type"] != "pid");
                }
            })?;
        let running = Running::start(test, &id)?;
        let spec = process(&["/tour.wasm", "spin"]);
        let added = Added::new(test, &id, "spin", &spec)?;
        let pid = added.exec.start()?;
        running.kill(Signal::SIGKILL)?;
        ensure!(running.wait()? == 137, "not 137");
        ensure!(added.exec.wait()? == 137, "shared {shared}: not 137");
        ensure!(
            !processes::all().iter().any(|p| p.pid.unsigned_abs() == pid),
            "shared {shared}: it outlives its container"
        );
        // Its record goes with the task, deleted or not.
        running.finish()?;
    }
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let added = Added::new(test, &running.id, "spin", &process(&["/tour.wasm", "spin"]))?;
    ensure!(added.exec.kill(9).is_err(), "killed before its start");
    added.exec.start()?;
    ensure!(added.exec.delete().is_err(), "deleted while it runs");
    ensure!(added.exec.start().is_err(), "started twice");
    added.exec.kill(Signal::SIGTERM as i32)?;
    ensure!(added.exec.wait()? == 143, "not 143");
    ensure!(added.exec.kill(9).is_err(), "killed after its end");
    added.finish()?;
    ensure!(
        test.api()?.state(&running.id)?.0 == Status::Running,
        "the container ended"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn leaves_nothing(test: &Test<'_>) -> Result<()> {
    let image = mixed(test)?;
    let wasm = test.run(&image).args(&["sleep", "1000000"]).start()?;
    wasm.stdout.until("sleeping", PATIENCE)?;
    let native_image = test.busybox()?;
    let native = test.run(&native_image).args(&["sleep", "1000"]).start()?;
    for running in [&wasm, &native] {
        let before = test.api()?.pids(&running.id)?;
        let mut nowhere = process(&["sh"]);
        nowhere["cwd"] = "/nowhere".into();
        for round in 0..3 {
            let failed = execute(test, &running.id, "failing", &nowhere);
            ensure!(failed.is_err(), "round {round}: it started");
        }
        let after = wait::until(PATIENCE, || {
            test.api()
                .ok()?
                .pids(&running.id)
                .ok()
                .filter(|pids| *pids == before)
        });
        ensure!(
            after.is_some(),
            "{:?} are not {before:?}",
            test.api()?.pids(&running.id)?
        );
        // What has said why it failed is about to end.
        let gone = wait::until(PATIENCE, || {
            let here = processes::concerning(test.namespace());
            let mut lines = here.iter().map(|process| &process.line);
            (!lines.any(|line| line.contains(" exec "))).then_some(())
        });
        ensure!(
            gone.is_some(),
            "{:?}",
            processes::concerning(test.namespace())
        );
    }
    wasm.end_by(Signal::SIGTERM)?;
    native.end_by(Signal::SIGKILL).map(drop)
}

fn many(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let mut added = Vec::new();
    for number in 0..10 {
        let code = number.to_string();
        let spec = process(&["/tour.wasm", "exit", &code]);
        let exec = Added::new(test, &running.id, &format!("exec{number}"), &spec)?;
        exec.exec.start()?;
        added.push((number, exec));
    }
    for (number, exec) in added {
        ensure!(exec.finish()?.code == number, "{number}");
    }
    ensure!(
        test.api()?.pids(&running.id)? == [running.pid],
        "some are left"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn by_ctr(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let dir = test.dir().display().to_string();
    let base = ["task", "exec", "--fifo-dir", &dir, "--exec-id"];
    let plain = [&base[..], &["e1", &running.id, "/tour.wasm", "exit", "4"]].concat();
    ensure!(test.ctr(&plain)?.code == 4, "{:?}", test.ctr(&plain)?);
    let mut ctr = test.node.ctr(test.namespace());
    ctr.args(base);
    ctr.args(["e2", "--tty", &running.id, "/tour.wasm", "terminal"]);
    let (code, screen) = terminal::run(ctr, PATIENCE)?;
    ensure!(
        code == 0 && screen.contains("stdin yes"),
        "{code}: {screen}"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}
