//! The suites, fast ones first.

mod native;

use wisp_tests::{Test, Version};

/// What a test does. It must leave no container; the rest is checked for it.
pub type Body = fn(&Test<'_>) -> anyhow::Result<()>;

/// A test.
#[derive(Clone, Copy, Debug)]
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
    tests
        .iter()
        .map(|&(name, test)| Case {
            suite,
            name,
            on: |_| true,
            test,
        })
        .collect()
}

/// All suites' tests.
pub fn all() -> Vec<Case> {
    [native::cases()].concat()
}
