//! Readers of what a container says that stop reading, or go.

use super::{Case, faults};
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use wisp_tests::Test;
use wisp_tests::api::Streams;
use wisp_tests::fifo::{self, Reader};
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    faults(&[
        (
            "a reader that stops reading blocks the guest and nobody else",
            reader_stops,
        ),
        (
            "a reader that vanishes is replaced by the next one",
            reader_vanishes,
        ),
        (
            "a logging program that dies is a broken pipe to the guest alone",
            logger_dies,
        ),
        (
            "a full disk under the log is the guest's error alone",
            log_disk_full,
        ),
    ])
}

/// Waits until a FIFO holds as much as it can.
fn until_full(path: &Path) -> Result<()> {
    let writer = OpenOptions::new()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    wait::until(PATIENCE, || {
        let mut polled = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
        (poll(&mut polled, PollTimeout::ZERO) == Ok(0)).then_some(())
    })
    .context("the guest does not fill its stdout")
}

/// A FIFO that nobody reads.
fn unread(path: &Path) -> Result<Streams> {
    drop(fifo::writer(path)?);
    Ok(Streams {
        stdout: path.display().to_string(),
        ..Streams::default()
    })
}

fn reader_stops(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    let path = test.dir().join("unread");
    let streams = unread(&path)?;
    for (image, args) in [
        (test.image("tour")?, &["flood", "1m"][..]),
        (test.image("tour-module")?, &["flood", "1m"]),
        (test.busybox()?, &["yes"]),
    ] {
        let id = test.run(&image).args(args).create()?;
        let pid = api.create(&id, &streams)?;
        api.start(&id)?;
        until_full(&path)?;
        ensure!(api.state(&id)? == (Status::Running, pid, 0));
        ensure!(api.pids(&id)? == [pid]);
        api.metrics(&id)?;
        // Another task of the same namespace is not concerned, either.
        let other = test.run(&image).args(args).create()?;
        let ended = api.create(&other, &Streams::default());
        ended?;
        api.kill(&other, Signal::SIGKILL as i32, false)?;
        api.wait(&other)?;
        api.delete(&other)?;

        api.kill(&id, Signal::SIGKILL as i32, false)?;
        ensure!(api.wait(&id)? == 137, "{image}: not 137");
        ensure!(api.delete(&id)? == 137, "{image}: not 137 from Delete");
        test.ctr_ok(&["container", "rm", &id, &other])?;
    }
    Ok(())
}

fn reader_vanishes(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    let image = test.image("tour")?;
    let path = test.dir().join("stdout");
    let streams = unread(&path)?;
    let id = test.run(&image).args(&["flood", "4m"]).create()?;
    api.create(&id, &streams)?;
    let mut first = OpenOptions::new().read(true).open(&path)?;
    api.start(&id)?;
    let mut said = vec![0; 100_000];
    first.read_exact(&mut said)?;
    drop(first);
    // The guest goes on as far as the FIFO has room, and is not told.
    until_full(&path)?;
    let mut second = OpenOptions::new().read(true).open(&path)?;
    second.read_to_end(&mut said)?;
    ensure!(api.wait(&id)? == 0, "the guest has failed");
    api.delete(&id)?;
    ensure!(said.len() == 4 << 20, "{} bytes", said.len());
    for (index, line) in said.chunks(16).enumerate() {
        let expected = format!("{:015x}\n", index * 16);
        ensure!(line == expected.as_bytes(), "at {}: {line:?}", index * 16);
    }
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn logger_dies(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    // It is ready, takes a little, and leaves stdout.
    let reasons = test.dir().join("reasons");
    let script = format!(
        "#!/bin/sh\n\
         exec 5>&-\n\
         head -c 1000 <&3 >/dev/null\n\
         exec 3<&-\n\
         cat <&4 >{}\n",
        reasons.display()
    );
    let logger = test.file("logger", script)?;
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755))?;
    let streams = Streams {
        stdout: format!("binary://{}", logger.display()),
        stderr: format!("binary://{}", logger.display()),
        ..Streams::default()
    };
    for (guest, args, expected) in [
        (test.image("tour")?, &["flood", "4m"][..], 1),
        (test.image("tour-module")?, &["flood", "4m"], 1),
        // What it is to every native program.
        (test.busybox()?, &["sh", "-c", "yes; exit 7"], 7),
    ] {
        let id = test.run(&guest).args(args).create()?;
        api.create(&id, &streams)?;
        api.start(&id)?;
        let ended = api.wait(&id)?;
        ensure!(ended == expected, "{guest}: exited {ended}");
        ensure!(api.state(&id)?.0 == Status::Stopped);
        api.delete(&id)?;
        let reason = fs::read_to_string(&reasons)?.to_lowercase();
        // Preview 1 knows the error by its number alone.
        let told = ["broken pipe", "os error 29"];
        ensure!(
            told.iter().any(|words| reason.contains(words)),
            "{guest}: {reason}"
        );
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}

fn log_disk_full(test: &Test<'_>) -> Result<()> {
    let api = test.api()?;
    let disk = super::scarcity::Disk::new(test, "logs", "64k")?;
    let stderr = Reader::new(&test.dir().join("stderr"))?;
    let streams = Streams {
        stdout: format!("file://{}", disk.path().join("log").display()),
        stderr: stderr.path(),
        ..Streams::default()
    };
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["flood", "1m"]).create()?;
    api.create(&id, &streams)?;
    api.start(&id)?;
    let ended = api.wait(&id)?;
    ensure!(ended == 1, "exited {ended}");
    api.delete(&id)?;
    let said = stderr.to_end(PATIENCE)?;
    ensure!(
        said.starts_with(b"tour flood"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    test.ctr_ok(&["container", "rm", &id])?;
    disk.remove()
}
