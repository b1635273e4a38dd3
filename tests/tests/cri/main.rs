//! Pods through containerd's own Kubernetes plugin: each test runs under every
//! containerd there is.
//!
//! `cargo test --release -p wisp-tests --test cri [-- FILTER]`; a filter is part
//! of a test's name, such as `1.6` or `volumes`.

mod suites;

use std::process::ExitCode;

fn main() -> ExitCode {
    wisp_tests::suite::main(&suites::all())
}
