//! Pods: a containerd with Kubernetes' plugin, a network of its own, and the
//! calls that kubelet makes over the CRI.
//!
//! A test gets a [`Test`]; it describes pods ([`Pod`]) and containers
//! ([`Container`]) and asks about them. What kubelet would do at the end of a
//! pod, stopping and removing it, is done for each pod of a test that succeeds.

mod client;
mod container;
mod log;
mod network;
mod node;
mod pod;
mod remains;
pub mod stream;
mod test;

pub use client::Client;
pub use container::{Container, Describe};
pub use log::{Line, Stream};
pub use network::Network;
pub use node::Node;
pub use pod::{DescribePod, Pod};
pub use test::{Pods, Test};

/// The messages of the API.
pub use k8s_cri::v1 as api;
