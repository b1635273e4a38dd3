//! Components that answer HTTP requests.

mod connections;
mod impatient;
mod outbound;
mod request;
mod server;
mod ticker;
mod tls;

pub use outbound::Outbound;
pub use request::Handler;
pub use server::run;
