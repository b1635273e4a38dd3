//! Guests that take as much as there is.

use super::super::{Case, cases as all};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use wisp_tests::Test;
use wisp_tests::api::Streams;
use wisp_tests::events::Events;
use wisp_tests::run::{Ended, Run};
use wisp_tests::wait::{self, PATIENCE};

const MIB: u64 = 1 << 20;

pub fn cases() -> Vec<Case> {
    all(
        "hostile taking",
        &[
            ("tables end at the memory limit", tables),
            ("resources of the host end before its memory", resources),
            (
                "open files and sockets end, and the guest goes on",
                descriptors,
            ),
            ("calls that are waited for end before memory does", waits),
            ("one call is given and takes no more than bounds", one_call),
            ("recursion ends in a trap", recursion),
            ("output that nobody reads takes no memory", output),
        ],
    )
}

fn limited<'t, 'n>(test: &'t Test<'n>, guest: &str, limit: u64) -> Result<Run<'t, 'n>> {
    let image = test.image(guest)?;
    let limit = (limit * MIB).to_string();
    Ok(test.run(&image).flags(&["--memory-limit", &limit]))
}

/// Runs it to its end, which is not the kernel's doing.
fn survives(test: &Test<'_>, run: Run<'_, '_>) -> Result<Ended> {
    let events = Events::subscribe(test.node, test.namespace())?;
    let running = run.start()?;
    let id = running.id.clone();
    let ended = running.finish()?;
    let seen = events.until_deleted(&id)?;
    ensure!(
        ended.code != 137 && seen.iter().all(|event| event.topic != "/tasks/oom"),
        "{ended:?} {seen:#?}"
    );
    Ok(ended)
}

fn tables(test: &Test<'_>) -> Result<()> {
    let ended = survives(test, limited(test, "too-many-tables", 32)?)?;
    ensure!(ended.code == 7, "{ended:?}");
    let told = ended.err();
    ensure!(told.contains("the memory limit was reached"), "{told}");
    Ok(())
}

fn resources(test: &Test<'_>) -> Result<()> {
    for limit in [16, 32, 256] {
        let run = limited(test, "hostile", limit)?.args(&["take", "timers"]);
        let ended = survives(test, run)?;
        ensure!(ended.code == 134, "{limit} MiB: {ended:?}");
        let told = ended.err();
        ensure!(told.contains("resource table"), "{told}");
    }
    Ok(())
}

fn descriptors(test: &Test<'_>) -> Result<()> {
    for what in ["files", "sockets", "lookups"] {
        let run = limited(test, "hostile", 32)?
            .net_host()
            .annotation("io.wisp.net.outbound", "tcp://localhost:1")
            .args(&["take", what]);
        let ended = survives(test, run)?;
        let (out, err) = (ended.out(), ended.err());
        let is_told = match ended.code {
            0 => out.contains("no more after"),
            134 => err.contains("resource table"),
            _ => false,
        };
        ensure!(is_told && !out.contains("REACHED"), "{what}: {ended:?}");
    }
    Ok(())
}

fn waits(test: &Test<'_>) -> Result<()> {
    for limit in [16, 32, 256] {
        let ended = survives(test, limited(test, "too-many-waits", limit)?)?;
        ensure!(ended.code == 134, "{limit} MiB: {ended:?}");
    }
    Ok(())
}

fn one_call(test: &Test<'_>) -> Result<()> {
    for (what, reason) in [("random", "exceeds limit"), ("text", "hostcalls")] {
        let run = limited(test, "hostile", 32)?
            .annotation("io.wisp.net.outbound", "tcp://*")
            .args(&["take", what]);
        let ended = survives(test, run)?;
        let (out, told) = (ended.out(), ended.err());
        ensure!(ended.code == 134, "{what}: {ended:?}");
        ensure!(!out.contains("REACHED"), "{what}: {out}");
        ensure!(told.contains(reason), "{what}: {told}");
    }
    Ok(())
}

fn recursion(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let run = limited(test, guest, 32)?.args(&["trap", "stack"]);
        let ended = survives(test, run)?;
        ensure!(ended.code == 134, "{guest}: {ended:?}");
        ensure!(ended.err().contains("call stack exhausted"), "{ended:?}");
    }
    Ok(())
}

/// What a process has in memory, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.context("no VmRSS")?.trim();
    Ok(words.trim_end_matches(" kB").trim().parse()?)
}

/// How many bytes wait in a pipe.
fn waiting(pipe: &File) -> Result<i32> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and the number is written to `bytes`.
    let answer = unsafe { nix::libc::ioctl(pipe.as_raw_fd(), nix::libc::FIONREAD, &raw mut bytes) };
    nix::errno::Errno::result(answer)?;
    Ok(bytes)
}

fn output(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["flood", "100000m"]).create()?;
    let path = test.dir().join("stdout");
    mkfifo(&path, Mode::S_IRWXU)?;
    // Somebody who could read, and does not.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)?;
    let api = test.api()?;
    let streams = Streams {
        stdout: path.display().to_string(),
        ..Streams::default()
    };
    api.create(&id, &streams)?;
    let pid = api.start(&id)?;
    let is_full = || waiting(&reader).ok().filter(|bytes| *bytes >= 64 << 10);
    wait::until(PATIENCE, is_full).context("the pipe is not full")?;
    let had = resident(pid)?;
    ensure!(had < 64 * 1024, "{had} KiB");
    api.kill(&id, Signal::SIGTERM as i32, false)?;
    let code = api.wait(&id)?;
    ensure!(code == 143, "{code}");
    api.delete(&id)?;
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}
