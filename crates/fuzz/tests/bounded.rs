//! Each parser stands what it is fed.
//!
//! `WISP_FUZZ_SECONDS=60 cargo test --release -p wisp-fuzz` goes on for a minute
//! each, with other inputs each time.

use std::path::Path;
use std::time::Duration;

use wisp_fuzz::bounded::{Amount, feed};
use wisp_fuzz::{TARGETS, Target};

/// The same inputs each time: a test that fails fails again.
const INPUTS: usize = 20_000;

fn stands(name: &str) {
    let target: &Target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target");
    let seconds = std::env::var("WISP_FUZZ_SECONDS").ok();
    let amount = match seconds.and_then(|text| text.parse().ok()) {
        Some(seconds) => Amount::Time(Duration::from_secs(seconds)),
        None => Amount::Inputs(INPUTS),
    };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    match feed(target, amount, &dir).expect("feed") {
        Ok(count) => assert!(count > 1, "{name}: nothing was tried"),
        Err(found) => panic!("{name}: {}: {}", found.path.display(), found.panic),
    }
}

#[test]
fn annotations() {
    stands("annotations");
}

#[test]
fn the_nodes_settings() {
    stands("config");
}

#[test]
fn a_containers_spec() {
    stands("spec");
}

#[test]
fn documents_of_images() {
    stands("images");
}

#[test]
fn archives_of_images() {
    stands("archives");
}

#[test]
fn programs() {
    stands("wasm");
}

#[test]
fn pods() {
    stands("pods");
}

#[test]
fn the_context_of_a_trace() {
    stands("traceparent");
}

#[test]
fn what_an_environment_says_of_traces() {
    stands("otel");
}
