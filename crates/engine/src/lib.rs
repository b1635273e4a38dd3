//! Runs guests on Wasmtime, without a compiler.
//!
//! In two steps, because the process enters its container in between:
//! [`prepare`] maps the code and links it, on one thread and with nothing else
//! started; [`Prepared::run`] makes what the guest sees and runs it to its end.

mod clocks;
mod command;
mod config;
mod error;
mod event_loop;
mod exit;
mod gate;
mod guest;
mod http;
mod interfaces;
pub mod ledger;
mod lookups;
mod memory;
mod network;
mod node_addresses;
mod page_map;
mod prepare;
mod refusals;
mod setup;
mod signals;
mod stacks;
mod stdio;
mod world;

pub use error::EngineError;
pub use http::CpuLimit;
pub use node_addresses::node_addresses;
pub use prepare::{Prepared, prepare};
pub use setup::{HostPreopen, Ready, Setup};
pub use signals::install_command_signals;
pub use world::{Wasi, World, of_component, of_module};
