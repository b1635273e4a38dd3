//! Native programs through the same lifecycle, and the harness itself, proven
//! on the runtime everybody has.

use super::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use wisp_tests::Test;
use wisp_tests::run::RUNC;

pub fn cases() -> Vec<Case> {
    super::cases(
        "native",
        &[
            (
                "the harness finds what runc has running and nothing after it",
                harness,
            ),
            ("busybox prints and exits 0", prints),
            ("busybox's exit code 7 is the container's", exit_code),
            ("busybox gets its stdin whole", stdin),
            ("busybox killed by SIGKILL exits 137", killed),
            ("a program that handles SIGTERM ends as it wants", handled),
            ("busybox sees its own process tree and root", isolated),
            ("a seccomp profile bites", profiled),
        ],
    )
}

fn harness(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let ended = test
        .run(&image)
        .runtime(RUNC)
        .args(&["echo", "hello"])
        .ctr()?;
    ensure!(ended.code == 0 && ended.out() == "hello\n", "{ended:?}");

    let running = test
        .run(&image)
        .runtime(RUNC)
        .args(&["sleep", "1000"])
        .start()?;
    let remains = test.remains();
    for kind in ["process", "mount", "cgroup", "socket", "directory"] {
        ensure!(
            remains.iter().any(|what| what.starts_with(kind)),
            "no {kind} of a running container found in {remains:#?}"
        );
    }
    let ended = running.end_by(Signal::SIGKILL)?;
    ensure!(ended.code == 137, "{ended:?}");
    Ok(())
}

fn prints(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let ended = test
        .run(&image)
        .args(&["sh", "-c", "echo out; echo err >&2"])
        .ctr()?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(
        ended.out() == "out\n" && ended.err() == "err\n",
        "{ended:?}"
    );
    Ok(())
}

fn exit_code(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let ended = test.run(&image).args(&["sh", "-c", "exit 7"]).ctr()?;
    ensure!(ended.code == 7, "{ended:?}");
    Ok(())
}

fn stdin(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let input: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let ended = test.run(&image).args(&["cat"]).fed(&input)?;
    ensure!(ended.code == 0, "exited {}: {}", ended.code, ended.err());
    ensure!(
        ended.stdout == input,
        "{} of {} bytes came back",
        ended.stdout.len(),
        input.len()
    );
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    let ended = running.end_by(Signal::SIGKILL)?;
    ensure!(ended.code == 137, "{ended:?}");
    Ok(())
}

fn handled(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let running = test.run(&image).args(&["sh", "-c", script]).start()?;
    running.stdout.until("ready", wisp_tests::wait::PATIENCE)?;
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 3 && ended.out().contains("bye"), "{ended:?}");
    Ok(())
}

fn profiled(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let profile = test.file(
        "seccomp.json",
        r#"{
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [{
                "names": ["mkdir", "mkdirat"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 95
            }]
        }"#,
    )?;
    let profile = profile.display().to_string();
    let script = ["sh", "-c", "touch /tmp/file && mkdir /tmp/dir"];
    let ended = test.run(&image).args(&script).ctr()?;
    ensure!(ended.code == 0, "without a profile: {ended:?}");
    let flags = ["--seccomp", "--seccomp-profile", &profile];
    let ended = test.run(&image).flags(&flags).args(&script).ctr()?;
    ensure!(ended.code != 0, "the profile does not bite: {ended:?}");
    ensure!(ended.err().contains("not supported"), "{}", ended.err());
    Ok(())
}

fn isolated(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let ended = test
        .run(&image)
        .args(&["sh", "-c", "echo $$; ls /; ls /proc/self/fd"])
        .ctr()?;
    ensure!(ended.code == 0, "{ended:?}");
    let out = ended.out();
    let lines: Vec<&str> = out.lines().collect();
    ensure!(lines.first() == Some(&"1"), "not pid 1: {out}");
    for name in ["bin", "tmp", "proc", "dev", "sys"] {
        ensure!(lines.contains(&name), "no {name} in {out}");
    }
    Ok(())
}
