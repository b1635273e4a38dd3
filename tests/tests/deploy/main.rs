//! What is in `deploy/`: everything that helm and kustomize make of it, and the
//! samples, is what Kubernetes takes.
//!
//! `cargo test --release -p wisp-tests --test deploy`; `tests/get-helm.sh` builds
//! the two tools.

mod annotations;
mod chart;
mod kustomizations;
mod objects;
mod same;
mod tools;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// A test: its name, whether it runs helm or kustomize, what it does.
type Case = (&'static str, bool, fn() -> anyhow::Result<()>);

const CASES: [Case; 10] = [
    ("samples are valid objects", false, kustomizations::samples),
    (
        "what pods of the samples ask for is understood",
        false,
        annotations::are_understood,
    ),
    ("every overlay is valid", true, kustomizations::overlays),
    ("the chart passes helm's lint", true, chart::lint),
    (
        "all renderings of the chart are valid",
        true,
        chart::renderings,
    ),
    ("values that are wrong are refused", true, chart::refused),
    (
        "the chart and the base give the same rights",
        true,
        same::rights,
    ),
    (
        "the chart and the base run the same program",
        true,
        same::programs,
    ),
    (
        "what the installer is told is what it understands",
        true,
        same::environment,
    ),
    ("all versions are this one", true, same::versions),
];

fn main() -> ExitCode {
    let missing = tools::missing();
    if let Some(reason) = &missing {
        eprintln!("wisp-tests: SKIPPED what helm and kustomize make of deploy/: {reason}");
    }
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let trials = CASES
        .into_iter()
        .map(|(name, tools, test)| {
            let ignored = tools && missing.is_some() && !ci;
            let run = move || test().map_err(|error| Failed::from(format!("{error:#}")));
            Trial::test(name, run).with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
