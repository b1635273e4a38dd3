//! The suites.

mod containerd;
mod failures;
mod installer;
mod kills;
mod runs;

use crate::machine::Subject;
use anyhow::Result;
use wisp_tests::Version;

/// What a test does.
type Body = fn(&Subject<'_>) -> Result<()>;

/// A test.
#[derive(Clone, Copy)]
pub struct Case {
    /// Which suite it is of.
    pub suite: &'static str,
    /// What it shows, as a sentence.
    pub name: &'static str,
    /// The containerds it makes sense under.
    pub on: fn(Version) -> bool,
    /// What it does.
    pub test: Body,
}

/// A suite's tests, for every containerd.
fn cases(suite: &'static str, tests: &[(&'static str, Body)]) -> Vec<Case> {
    let case = |&(name, test)| Case {
        suite,
        name,
        on: |_| true,
        test,
    };
    tests.iter().map(case).collect()
}

/// All suites' tests. The last one upgrades containerd.
pub fn all() -> Vec<Case> {
    [
        runs::cases(),
        failures::cases(),
        kills::cases(),
        installer::cases(),
        containerd::cases(),
    ]
    .concat()
}
