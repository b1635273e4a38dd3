//! Requests that a guest makes.

mod client;
mod dial;
mod errors;
mod exchange;
mod kept;
mod proxy;
mod received;
mod sent;
mod target;
mod tls;
mod trust;
mod tunnel;

use std::sync::Arc;

use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub use client::Client;

use super::trace::Calls;

/// Makes the requests of one instance, as far as its grant allows.
pub struct Outbound {
    client: Arc<Client>,
    /// What it makes them for.
    pub calls: Calls,
}

/// How many bytes of a body the host takes from a guest at once, of responses and
/// of requests that it sends: of each it has up to three parts, which are memory
/// of the container's process beside what its guests may have.
const PART: usize = 64 << 10;

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answered = Result<(http::Response<WasiBody>, Io), Error>;

impl Outbound {
    pub fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            calls: Calls::default(),
        }
    }
}

impl WasiHttpHooks for Outbound {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PART
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        PART
    }

    fn send_request(
        &mut self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Answered> + Send> {
        let client = self.client.clone();
        let options = options.unwrap_or_default();
        match self.calls.begin(&mut request) {
            None => Box::new(async move { client.send(request, options).await }),
            Some(call) => {
                Box::new(async move { call.answered(client.send(request, options).await) })
            }
        }
    }
}
