//! Native programs in containers of both kinds.

use super::super::Body;
use super::{Added, execute, mixed, namespaces, process};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use wisp_tests::Test;
use wisp_tests::wait::PATIENCE;

pub fn cases() -> [(&'static str, Body); 4] {
    [
        (
            "a native program of a Wasm container has the image as its root",
            native,
        ),
        (
            "a native program of a Wasm container is confined as asked",
            confined,
        ),
        ("a native container executes programs", in_native),
        (
            "a native container says that it has no such program",
            in_native_missing,
        ),
    ]
}

fn native(test: &Test<'_>) -> Result<()> {
    let image = mixed(test)?;
    let running = test.run(&image).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let mut spec = process(&[
        "sh",
        "-c",
        "pwd; ls /; echo $ONLY; echo x > /dev/null && echo null",
    ]);
    spec["cwd"] = "/work".into();
    let ended = execute(test, &running.id, "native", &spec)?;
    ensure!(ended.code == 0, "{ended:?}");
    let out = ended.out();
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "/work",
        "bin",
        "dev",
        "proc",
        "tour.wasm",
        "work",
        "exec",
        "null",
    ];
    ensure!(lines == expected, "{out}");
    // The jail is not to be found by going up.
    let up = process(&["sh", "-c", "cd /..; ls; ls /../../rootfs"]);
    let ended = execute(test, &running.id, "up", &up)?;
    ensure!(
        ended.code != 0 && !ended.out().contains("rootfs"),
        "{ended:?}"
    );
    ensure!(execute(test, &running.id, "code", &process(&["sh", "-c", "exit 9"]))?.code == 9);
    // The container's own processes are in sight, what the spec masks is not.
    let see = "cat /proc/1/comm; cat /proc/kcore; echo 1 > /proc/sys/kernel/panic";
    let ended = execute(test, &running.id, "proc", &process(&["sh", "-c", see]))?;
    ensure!(ended.out().lines().count() == 1, "{ended:?}");
    ensure!(ended.err().contains("Read-only file system"), "{ended:?}");
    // A device that the cgroup allows, made where every mount is without devices.
    let mut make = process(&[
        "sh",
        "-c",
        "mknod /dev/mine c 1 3 && echo made; cat /dev/mine && echo read; cat /dev/null",
    ]);
    let mknod = json!(["CAP_MKNOD"]);
    make["capabilities"] = json!({ "bounding": mknod, "permitted": mknod, "effective": mknod });
    let ended = execute(test, &running.id, "make", &make)?;
    ensure!(ended.out() == "made\n" && ended.code == 0, "{ended:?}");
    ensure!(ended.err().contains("Permission denied"), "{ended:?}");
    let mut nowhere = process(&["sh"]);
    nowhere["cwd"] = "/nowhere".into();
    let error = execute(test, &running.id, "nowhere", &nowhere)
        .err()
        .context("started")?;
    ensure!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    running.end_by(Signal::SIGTERM).map(drop)
}

fn confined(test: &Test<'_>) -> Result<()> {
    let image = mixed(test)?;
    let profile = test.file(
        "exec-seccomp.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
    )?;
    let profile = profile.display().to_string();
    let running = test
        .run(&image)
        .flags(&["--seccomp", "--seccomp-profile", &profile])
        .annotation("io.wisp.fs.root", "rw")
        .args(&["sleep", "1000000"])
        .start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let mut spec = process(&["sh", "-c", "id -u; id -g; id -G; sleep 1000"]);
    spec["user"] = json!({ "uid": 1000, "gid": 2000, "additionalGids": [3000] });
    spec["noNewPrivileges"] = true.into();
    spec["capabilities"] = json!({
        "bounding": ["CAP_NET_RAW"], "effective": [], "permitted": [], "inheritable": []
    });
    spec["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 77, "soft": 66 }]);
    let added = Added::new(test, &running.id, "user", &spec)?;
    let pid = added.exec.start()?;
    added.stdout.until("1000\n2000\n2000 3000\n", PATIENCE)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000002000",
        "NoNewPrivs:\t1",
    ] {
        ensure!(status.contains(line), "no {line} in {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.context("limits")?.split_whitespace().collect();
    ensure!(files.contains(&"66") && files.contains(&"77"), "{files:?}");
    added.exec.kill(Signal::SIGKILL as i32)?;
    ensure!(added.finish()?.code == 137, "not 137");
    let ended = execute(
        test,
        &running.id,
        "mkdir",
        &process(&["mkdir", "/work/new"]),
    )?;
    ensure!(
        ended.code != 0 && ended.err().contains("not supported"),
        "{ended:?}"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn in_native(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    let mut spec = process(&[
        "sh",
        "-c",
        "echo $ONLY; pwd; id -u; cat; echo err >&2; exit 5",
    ]);
    spec["cwd"] = "/tmp".into();
    spec["user"] = json!({ "uid": 1000, "gid": 1000 });
    let ended = execute(test, &running.id, "sh", &spec)?;
    ensure!(ended.code == 5, "{ended:?}");
    ensure!(
        ended.out() == "exec\n/tmp\n1000\n" && ended.err() == "err\n",
        "{ended:?}"
    );
    let sleeper = Added::new(test, &running.id, "sleep", &process(&["sleep", "1000"]))?;
    let pid = sleeper.exec.start()?;
    ensure!(
        namespaces(pid)? == namespaces(running.pid)?,
        "other namespaces"
    );
    sleeper.exec.kill(Signal::SIGKILL as i32)?;
    ensure!(sleeper.finish()?.code == 137, "not 137");
    running.end_by(Signal::SIGKILL).map(drop)
}

fn in_native_missing(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    let error = execute(test, &running.id, "none", &process(&["no-such-program"]))
        .err()
        .context("it started")?;
    ensure!(
        format!("{error:#}").contains("no-such-program"),
        "{error:#}"
    );
    // What is left of it does not keep the container from executing.
    ensure!(execute(test, &running.id, "none", &process(&["true"]))?.code == 0);
    running.end_by(Signal::SIGKILL).map(drop)
}
