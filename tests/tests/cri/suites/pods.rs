//! A pod's life: its sandbox, its containers, and how they are told of.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use wisp_tests::cri::api::{
    ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
};
use wisp_tests::cri::{Stream, Test};
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    super::cases(
        "pods",
        &[
            ("a sandbox is ready, has an address, and goes", sandbox),
            ("a Wasm command runs, logs and completes", command),
            ("a native command runs, logs and completes", native),
            ("an end is told by exit code and reason", endings),
            ("what cannot run says why in its status", cannot_run),
            ("a container may come again in its pod", again),
            (
                "what one container leaves in a volume, the next finds",
                in_turn,
            ),
            ("pods and containers are listed by label and state", lists),
            ("removing a pod ends what runs in it", removed_while_running),
            ("a pod whose pause has ended is not ready", without_pause),
            ("a log that was moved away is begun anew", reopened_log),
            ("a long line of a guest is one line of its log", long_line),
        ],
    )
}

fn sandbox(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("empty").run()?;
    let (status, _) = pod.status()?;
    ensure!(status.runtime_handler == "wisp", "{status:?}");
    ensure!(pod.is_ready()?, "{status:?}");
    let address = pod.address()?;
    ensure!(test.node.network().has_lease(&address), "{address}");
    pod.stop()?;
    ensure!(!pod.is_ready()?, "ready after its stop");
    // Each call may come again.
    pod.stop()?;
    pod.remove()?;
    pod.remove()
}

fn command(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("command").run()?;
    let image = test.image("tour")?;
    let container = pod.container("app", &image).args(&["both"]).create()?;
    ensure!(
        container.status()?.state() == ContainerState::ContainerCreated,
        "not created"
    );
    container.start()?;
    let status = container.wait()?;
    ensure!(
        status.exit_code == 0 && status.reason == "Completed" && status.message.is_empty(),
        "{status:?}"
    );
    // containerd 1.6 takes the time of a start after the fact: it may be later
    // than the end.
    let (created, started, finished) = (status.created_at, status.started_at, status.finished_at);
    ensure!(created <= started && created <= finished, "{status:?}");
    let streams = [
        (Stream::Stdout, "stdout 1\nstdout 2\nstdout 3\n"),
        (Stream::Stderr, "stderr 1\nstderr 2\nstderr 3\n"),
    ];
    for (stream, expected) in streams {
        let text = container.text(stream)?;
        ensure!(text == expected, "{stream:?}: {text:?}");
    }
    container.remove()
}

fn native(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("native").run()?;
    let said = pod
        .container("app", &test.busybox()?)
        .command(&["sh", "-c"])
        .args(&["echo hello $NAME"])
        .env("NAME", "pod")
        .succeeds()?;
    ensure!(said == "hello pod\n", "{said:?}");
    Ok(())
}

fn endings(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("endings").run()?;
    let (tour, busybox) = (test.image("tour")?, test.busybox()?);
    let ways: [(&str, &str, &[&str], i32); 4] = [
        ("code", &tour, &["exit", "3"], 3),
        ("trap", &tour, &["trap"], 134),
        ("native", &busybox, &["sh", "-c", "exit 7"], 7),
        ("signal", &busybox, &["sleep", "1000"], 137),
    ];
    for (name, image, args, code) in ways {
        let container = pod.container(name, image).args(args).start()?;
        if name == "signal" {
            kill(
                Pid::from_raw(i32::try_from(container.pid()?)?),
                Signal::SIGKILL,
            )?;
        }
        let status = container.wait()?;
        ensure!(
            status.exit_code == code && status.reason == "Error",
            "{name}: {status:?}"
        );
        if name == "trap" {
            let log = container.text(Stream::Stderr)?;
            ensure!(
                log.contains("unreachable") && log.contains("inner"),
                "{log}"
            );
        }
    }
    Ok(())
}

fn cannot_run(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("refused").run()?;
    let image = test.image("missing-import")?;
    for name in ["once", "twice"] {
        let container = pod.container(name, &image).create()?;
        let error = container.start().err().context("it started")?;
        let error = format!("{error:#}");
        ensure!(error.contains("import"), "{error}");
        let status = container.wait()?;
        ensure!(
            status.exit_code == 128 && status.reason == "StartError",
            "{status:?}"
        );
        ensure!(status.message.contains("import"), "{status:?}");
        container.remove()?;
    }
    // A command that the image does not have.
    let container = pod
        .container("absent", &test.image("tour")?)
        .command(&["/no-such-program"])
        .create()?;
    let error = container.start().err().context("it started")?;
    ensure!(
        format!("{error:#}").contains("/no-such-program"),
        "{error:#}"
    );
    let status = container.wait()?;
    ensure!(status.reason == "StartError", "{status:?}");
    // The pod has not suffered.
    ensure!(pod.is_ready()?, "the pod is not ready");
    pod.container("after", &test.image("hello")?).succeeds()?;
    Ok(())
}

fn again(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("restarts").run()?;
    let image = test.image("tour")?;
    for attempt in 0..3 {
        let container = pod
            .container("app", &image)
            .attempt(attempt)
            .args(&["exit", "1"])
            .start()?;
        let status = container.wait()?;
        ensure!(status.exit_code == 1, "{status:?}");
        ensure!(
            status.metadata.is_some_and(|data| data.attempt == attempt),
            "attempt {attempt}"
        );
    }
    Ok(())
}

fn in_turn(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("in-turn").run()?;
    let volume = test.volume("shared")?;
    let (tour, busybox) = (test.image("tour")?, test.busybox()?);
    pod.container("init", &tour)
        .volume(&volume, "/work")
        .args(&["write", "/work/note", "from the first"])
        .succeeds()?;
    let said = pod
        .container("native", &busybox)
        .volume(&volume, "/work")
        .args(&["sh", "-c", "cat /work/note; echo; echo second > /work/note"])
        .succeeds()?;
    ensure!(said == "from the first\n", "{said:?}");
    let said = pod
        .container("app", &tour)
        .volume(&volume, "/work")
        .args(&["read", "/work/note"])
        .succeeds()?;
    ensure!(said == "second\n", "{said:?}");
    Ok(())
}

fn lists(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let pod = test.pod("listed").run()?;
    let other = test.pod("other").run()?;
    let ended = pod.container("ended", &image).args(&["args"]).start()?;
    ended.wait()?;
    let running = pod
        .container("running", &image)
        .args(&["sleep", "600000"])
        .start()?;
    running.says("sleeping")?;
    let waiting = other.container("waiting", &image).create()?;

    let containers = |filter: ContainerFilter| -> Result<Vec<(String, ContainerState)>> {
        let request = ListContainersRequest {
            filter: Some(filter),
        };
        let answer = test.client().call("ListContainers", async |mut to| {
            to.list_containers(request).await
        })?;
        let mut found: Vec<_> = answer
            .containers
            .iter()
            .map(|container| (container.id.clone(), container.state()))
            .collect();
        found.sort();
        Ok(found)
    };
    let namespace = (
        "io.kubernetes.pod.namespace".to_owned(),
        test.name().to_owned(),
    );
    let mut all = vec![
        (ended.id.clone(), ContainerState::ContainerExited),
        (running.id.clone(), ContainerState::ContainerRunning),
        (waiting.id.clone(), ContainerState::ContainerCreated),
    ];
    all.sort();
    let found = containers(ContainerFilter {
        label_selector: [namespace.clone()].into(),
        ..ContainerFilter::default()
    })?;
    ensure!(found == all, "by label: {found:?}");
    let found = containers(ContainerFilter {
        pod_sandbox_id: pod.id.clone(),
        state: Some(ContainerStateValue {
            state: ContainerState::ContainerRunning.into(),
        }),
        ..ContainerFilter::default()
    })?;
    ensure!(
        found == [(running.id.clone(), ContainerState::ContainerRunning)],
        "by pod and state: {found:?}"
    );

    other.stop()?;
    let request = ListPodSandboxRequest {
        filter: Some(PodSandboxFilter {
            label_selector: [namespace].into(),
            state: Some(PodSandboxStateValue {
                state: PodSandboxState::SandboxNotready.into(),
            }),
            ..PodSandboxFilter::default()
        }),
    };
    let answer = test.client().call("ListPodSandbox", async |mut to| {
        to.list_pod_sandbox(request).await
    })?;
    let found: Vec<&str> = answer.items.iter().map(|pod| pod.id.as_str()).collect();
    ensure!(found == [other.id.as_str()], "pods: {found:?}");
    Ok(())
}

fn removed_while_running(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("doomed").run()?;
    pod.container("server", &test.image("http-02")?).start()?;
    pod.container("busy", &test.image("tour")?)
        .args(&["spin"])
        .start()?
        .says("spinning")?;
    pod.container("native", &test.busybox()?)
        .args(&["sleep", "1000"])
        .start()?;
    pod.remove()
}

fn without_pause(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("orphaned").run()?;
    let container = pod
        .container("app", &test.image("tour")?)
        .args(&["sleep", "600000"])
        .start()?;
    container.says("sleeping")?;
    kill(Pid::from_raw(i32::try_from(pod.pid()?)?), Signal::SIGKILL)?;
    wait::until(PATIENCE, || (!pod.is_ready().ok()?).then_some(()))
        .context("the pod is still ready")?;
    // What runs is kubelet's to stop.
    container.stop(1)?;
    let status = container.wait()?;
    ensure!(status.exit_code == 143, "{status:?}");
    Ok(())
}

fn reopened_log(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("rotated").run()?;
    let container = pod
        .container("app", &test.busybox()?)
        .args(&[
            "sh",
            "-c",
            "echo old; while :; do echo tick; sleep 0.1; done",
        ])
        .start()?;
    container.says("old")?;
    let moved = container.log.with_extension("log.1");
    fs::rename(&container.log, &moved)?;
    container.reopen_log()?;
    container.says("tick")?;
    ensure!(
        !container.text(Stream::Stdout)?.contains("old"),
        "the new log has the old lines"
    );
    ensure!(fs::read_to_string(moved)?.contains("old"), "the old log");
    container.stop(0)
}

fn long_line(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("long").run()?;
    // More than containerd keeps in one entry, 16 KiB.
    let line = "0123456789".repeat(5000);
    let container = pod
        .container("app", &test.image("tour")?)
        .args(&["args", &line, "short"])
        .start()?;
    container.wait()?;
    let raw = fs::read_to_string(&container.log)?;
    ensure!(raw.contains(" stdout P "), "the log has no partial entries");
    let text = container.text(Stream::Stdout)?;
    ensure!(text == format!("{line}\nshort\n"), "{} bytes", text.len());
    Ok(())
}
