//! The least that a server can do, with `wasi:http/incoming-handler` 0.2.

use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wasip2::http::proxy::export!(Server);

struct Server;

impl wasip2::exports::http::incoming_handler::Guest for Server {
    fn handle(_: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("a new response has a body");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("a new body has a stream");
        // Whoever asked sees what is missing.
        let _ = stream.blocking_write_and_flush(b"hello\n");
        // The stream is a child of the body and must go first.
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
