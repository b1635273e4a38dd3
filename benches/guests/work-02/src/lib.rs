//! A server that works, with `wasi:http/incoming-handler` 0.2: `/echo` reads JSON
//! and writes it again, `/stream` sends 10 MiB, `/call?AUTHORITY` asks another
//! server and answers with what it says.

use std::io::{Read, Write};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};

/// How much is written at a time.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 160;

wasip2::http::proxy::export!(Server);

struct Server;

impl wasip2::exports::http::incoming_handler::Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => {
                let body = request.consume().expect("a request has a body");
                let value: serde_json::Value =
                    serde_json::from_slice(&all(body)).expect("JSON is sent");
                let text = serde_json::to_vec(&value).expect("JSON can be written");
                respond(out, 200, |body| body.write_all(&text));
            }
            "/stream" => {
                let chunk = vec![b'.'; CHUNK];
                respond(out, 200, |body| {
                    (0..CHUNKS).try_for_each(|_| body.write_all(&chunk))
                });
            }
            "/call" => {
                let answer = all(call(query));
                respond(out, 200, |body| body.write_all(&answer));
            }
            _ => respond(out, 404, |_| Ok(())),
        }
    }
}

fn all(body: IncomingBody) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = body.stream().expect("a new body has a stream");
    stream.read_to_end(&mut bytes).expect("the body comes");
    bytes
}

fn call(authority: &str) -> IncomingBody {
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some("/")))
        .expect("an address");
    let pending = outgoing_handler::handle(request, None).expect("a request can be sent");
    pending.subscribe().block();
    let response = pending
        .get()
        .expect("it is there")
        .expect("it is taken once")
        .expect("the other server answers");
    response.consume().expect("a response has a body")
}

fn respond(
    out: ResponseOutparam,
    status: u16,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("a status");
    let body = response.body().expect("a new response has a body");
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().expect("a new body has a stream");
    // Whoever asked sees what is missing.
    let _ = write(&mut stream).and_then(|()| Write::flush(&mut stream));
    // The stream is a child of the body and must go first.
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
