//! What is in `deploy/`: everything that helm and kustomize make of it, and the
//! samples, is what Kubernetes takes.
//!
//! `cargo test --release -p wisp-tests --test deploy`; `tests/get-helm.sh` builds
//! the two tools. Where `tests/get-kubernetes.sh` has been run, an API server is
//! asked, too.

mod annotations;
mod chart;
mod kustomizations;
mod objects;
mod same;
mod server;
mod tools;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use wisp_tests::kubernetes;

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

/// A test that asks an API server.
type Asking = (&'static str, fn(&server::Served) -> anyhow::Result<()>);

const ASKING: [Asking; 4] = [
    ("an API server takes every overlay", server::kustomizations),
    (
        "an API server takes all renderings of the chart",
        server::renderings,
    ),
    ("an API server takes the samples", server::samples),
    (
        "the installer may do what it does, and no more",
        server::rights,
    ),
];

/// The API server, started by the first test that asks.
type Shared = Arc<OnceLock<Result<server::Served, String>>>;

fn main() -> ExitCode {
    let missing = tools::missing();
    if let Some(reason) = &missing {
        eprintln!("wisp-tests: SKIPPED what helm and kustomize make of deploy/: {reason}");
    }
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    let mut trials: Vec<Trial> = CASES
        .into_iter()
        .map(|(name, tools, test)| {
            let ignored = tools && missing.is_some() && !ci;
            let run = move || test().map_err(|error| Failed::from(format!("{error:#}")));
            Trial::test(name, run).with_ignored_flag(ignored)
        })
        .collect();
    // To build it takes long: only `make test-kubernetes` does.
    let unserved = missing.or_else(kubernetes::missing);
    if let Some(reason) = &unserved {
        eprintln!("wisp-tests: SKIPPED what an API server says to it: {reason}");
    }
    let shared = Shared::default();
    trials.extend(ASKING.into_iter().map(|(name, test)| {
        let shared = Arc::clone(&shared);
        let run = move || {
            let server = shared.get_or_init(|| server::start().map_err(|e| format!("{e:#}")));
            let server = server.as_ref().map_err(Failed::from)?;
            test(server).map_err(|error| Failed::from(format!("{error:#}")))
        };
        Trial::test(name, run).with_ignored_flag(unserved.is_some())
    }));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    // It must end before this process does.
    drop(shared);
    conclusion.exit_code()
}
