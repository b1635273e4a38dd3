//! Every parser of what comes from outside, fed with what nobody would write.
//!
//! A target takes any bytes, and must neither panic nor break a promise that it
//! checks. [`bounded`] feeds it for a while on stable Rust: what is in `corpus/`,
//! and mutations of that; `fuzz/` has the same targets for `cargo fuzz`, which
//! finds more and needs nightly Rust. See `docs/fuzzing.md`.

pub mod bounded;
mod mutate;
mod targets;

/// A parser and what may be said of it.
#[derive(Clone, Copy)]
pub struct Target {
    /// Of its folder in `corpus/`, too.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "annotations",
        run: targets::annotations::run,
    },
    Target {
        name: "config",
        run: targets::config::run,
    },
    Target {
        name: "spec",
        run: targets::spec::run,
    },
    Target {
        name: "images",
        run: targets::images::documents,
    },
    Target {
        name: "archives",
        run: targets::images::archives,
    },
    Target {
        name: "wasm",
        run: targets::inspect::wasm,
    },
    Target {
        name: "pods",
        run: targets::inspect::pods,
    },
    Target {
        name: "traceparent",
        run: targets::traces::fields,
    },
    Target {
        name: "otel",
        run: targets::traces::variables,
    },
];

/// Feeds `data` to the target called `name`.
///
/// # Panics
/// If there is none, or the target finds a promise broken.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a target's name").run)(data);
}
