//! The suites, fast ones first.

mod churn;
mod exec;
mod faults;
mod install;
mod installer;
mod network;
mod pods;
mod resources;
mod security;
mod stops;
mod streams;
mod volumes;

use anyhow::Result;
use wisp_tests::cri::{Pods, Test};
use wisp_tests::suite;

/// A test of these suites.
pub type Case = suite::Case<Pods>;

/// What a test does.
type Body = fn(&Test<'_>) -> Result<()>;

/// A suite's tests, for every containerd.
fn cases(suite: &'static str, tests: &[(&'static str, Body)]) -> Vec<Case> {
    suite::cases(suite, tests)
}

/// All suites' tests.
pub fn all() -> Vec<Case> {
    [
        pods::cases(),
        stops::cases(),
        network::cases(),
        volumes::cases(),
        security::cases(),
        resources::cases(),
        streams::cases(),
        exec::cases(),
        faults::cases(),
        install::cases(),
        installer::cases(),
        churn::cases(),
    ]
    .concat()
}
