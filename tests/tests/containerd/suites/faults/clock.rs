//! Setting the wall clock. It is the whole machine's, so these tests run only where
//! the machine is theirs: in that of `make test-vm`.

use super::Case;
use crate::suites::cases;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use wisp_tests::Test;
use wisp_tests::run::Running;

pub fn clock_cases() -> Vec<Case> {
    if std::env::var_os("WISP_TESTS_OWN_MACHINE").is_none() {
        return Vec::new();
    }
    cases(
        "clock",
        &[(
            "setting the clock far ahead and back disturbs nothing",
            set_far,
        )],
    )
}

/// The right time comes back when this goes.
struct Clock {
    then: SystemTime,
    since: Instant,
}

impl Clock {
    fn new() -> Self {
        Self {
            then: SystemTime::now(),
            since: Instant::now(),
        }
    }

    fn set(time: SystemTime) -> Result<()> {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let said = Command::new("date")
            .args(["-s", &format!("@{seconds}")])
            .output()?;
        ensure!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        Ok(())
    }

    fn now(&self) -> SystemTime {
        self.then + self.since.elapsed()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = Self::set(self.now());
    }
}

fn set_far(test: &Test<'_>) -> Result<()> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    let api = test.api()?;
    // Twelve days.
    let guest = test.run(&tour).args(&["sleep", "1000000"]).start()?;
    let native = test.run(&busybox).args(&["sleep", "1000"]).start()?;
    let clock = Clock::new();
    let times = [
        clock.now() + DAY * 400,
        clock.now() - DAY * 400,
        clock.now(),
    ];
    for time in times {
        Clock::set(time)?;
        for running in [&guest, &native] {
            let (_, pid, _) = api.state(&running.id)?;
            ensure!(pid == running.pid, "{pid}");
            api.metrics(&running.id)?;
        }
        // Others come and go, and their cached programs are found.
        for (image, args) in [(&busybox, ["sleep", "1000"]), (&tour, ["sleep", "1000000"])] {
            let other: Running<'_, '_> = test.run(image).args(&args).start()?;
            let ended = other.end_by(Signal::SIGKILL)?;
            ensure!(ended.code == 137, "{ended:?}");
        }
        let ended = test.run(&tour).args(&["exit", "7"]).ctr()?;
        ensure!(ended.code == 7, "{ended:?}");
    }
    for running in [guest, native] {
        let ended = running
            .end_by(Signal::SIGKILL)
            .context("what ran all the time")?;
        ensure!(ended.code == 137, "{ended:?}");
    }
    Ok(())
}
