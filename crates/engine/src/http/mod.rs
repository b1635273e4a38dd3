//! Components that answer HTTP requests.

mod access_log;
mod activity;
mod answer;
mod body;
mod connections;
mod cores;
mod early;
mod instance;
mod instances;
mod metrics;
mod outbound;
pub(crate) mod pool;
mod record;
mod request;
mod scrape;
mod server;
mod shared;
mod spare;
mod ticker;
mod trace;
mod turns;
mod workers;

pub use cores::CpuLimit;
pub use instance::Handler;
pub use outbound::{Client, Outbound};
pub use server::run;
pub use trace::Calls;
