//! The harness of the integration suites: private containerds, images, a test's
//! own namespace in them, and the proof that nothing is left after a test.
//!
//! The suites are in `tests/containerd/`. A test gets a [`Test`], through which
//! it reaches one containerd ([`Containerd`]) with `ctr` and with the API
//! ([`api::Client`]).

pub mod api;
pub mod cgroups;
pub mod cluster;
pub mod collector;
pub mod command;
pub mod configuration;
pub mod containerd;
pub mod cri;
pub mod dns;
pub mod events;
pub mod fifo;
pub mod http;
pub mod images;
pub mod kubernetes;
pub mod leaks;
pub mod oci;
pub mod paths;
pub mod processes;
pub mod random;
pub mod run;
pub mod server;
pub mod suite;
pub mod terminal;
pub mod test;
pub mod unit;
pub mod upstream;
pub mod version;
pub mod wait;

pub use containerd::Containerd;
pub use run::{Ended, Run, Running};
pub use test::Test;
pub use version::Version;
