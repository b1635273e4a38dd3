//! The suites: each test runs under every containerd there is.
//!
//! `cargo test --release -p wisp-tests --test containerd [-- FILTER]`; a filter
//! is part of a test's name, such as `1.6` or `http`.

mod suites;

use std::process::ExitCode;

fn main() -> ExitCode {
    wisp_tests::suite::main(&suites::all())
}
