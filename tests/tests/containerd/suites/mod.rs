//! The suites, fast ones first.

mod artifacts;
mod bombs;
mod cache;
mod cgroups;
mod churn;
mod commands;
mod doctor;
mod endings;
mod exec;
mod faults;
mod files;
mod hostile;
mod http;
mod http_outbound;
mod http_server;
mod http_threads;
mod http_together;
mod http_traces;
mod image;
mod inspect;
mod lifecycle;
mod limits;
mod memory;
mod native;
mod network;
mod pause;
mod policy;
mod refused;
mod same;
mod streams;
mod systemd;
mod terminals;
mod together;
mod told;

use anyhow::{Result, ensure};
use wisp_tests::suite;
use wisp_tests::test::Tasks;
use wisp_tests::{Run, Test};

/// A test of these suites.
pub type Case = suite::Case<Tasks>;

/// What a test does.
type Body = fn(&Test<'_>) -> Result<()>;

/// A suite's tests, for every containerd.
fn cases(suite: &'static str, tests: &[(&'static str, Body)]) -> Vec<Case> {
    suite::cases(suite, tests)
}

/// Runs `tour` and takes nothing but its failure.
fn fails(run: Run<'_, '_>) -> Result<String> {
    let ended = run.ctr()?;
    ensure!(
        ended.code == 1,
        "expected a failing guest, got {ended:?}\n{}",
        ended.err()
    );
    ensure!(
        ended.err().lines().any(|line| line.starts_with("tour ")),
        "not the guest's own error: {}",
        ended.err()
    );
    Ok(ended.err())
}

/// Runs `tour` and takes nothing but its success.
fn works(run: Run<'_, '_>) -> Result<String> {
    let ended = run.ctr()?;
    ensure!(ended.code == 0, "exited {}: {}", ended.code, ended.err());
    Ok(ended.out())
}

/// All suites' tests.
pub fn all() -> Vec<Case> {
    [
        native::cases(),
        commands::cases(),
        endings::cases(),
        refused::cases(),
        artifacts::cases(),
        image::cases(),
        cache::cases(),
        doctor::cases(),
        inspect::cases(),
        files::cases(),
        network::cases(),
        told::cases(),
        streams::cases(),
        http::cases(),
        http_outbound::cases(),
        http_server::cases(),
        http_threads::cases(),
        http_together::cases(),
        http_traces::cases(),
        lifecycle::cases(),
        pause::cases(),
        policy::cases(),
        limits::cases(),
        memory::cases(),
        same::cases(),
        together::cases(),
        terminals::cases(),
        exec::cases(),
        cgroups::cases(),
        systemd::cases(),
        faults::all(),
        hostile::all(),
        bombs::cases(),
        churn::cases(),
    ]
    .concat()
}
