//! What users of Kubernetes do with wisp, in a cluster of one node: `kubectl apply`,
//! pods, probes, `kubectl exec`, and away again.
//!
//! `make test-kubernetes`: `tests/kubernetes/run.sh` makes the node of namespaces, in
//! which alone this can run.

mod node;
mod pods;
mod removal;
mod rights;
mod samples;
mod streams;
mod world;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use world::World;

/// A test: its name and what it does.
type Case = (&'static str, fn(&World) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // In this order: wisp comes, is used, and goes.
    let cases = [
        node::CASES,
        rights::CASES,
        pods::CASES,
        samples::CASES,
        streams::CASES,
        removal::CASES,
    ]
    .concat();
    let world = match World::start(arguments.list) {
        Ok(world) => Arc::new(world),
        Err(error) => {
            eprintln!("wisp-tests: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases
        .into_iter()
        .map(|(name, test)| {
            let world = Arc::clone(&world);
            Trial::test(name, move || {
                test(&world).map_err(|error| {
                    // Now, not only at the end, which is minutes away.
                    eprintln!("{error:#}");
                    Failed::from(format!("{error:#}"))
                })
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(world);
    conclusion.exit_code()
}
