//! A server that works, with `wasi:http/handler` 0.3: `/echo` reads JSON and
//! writes it again, `/stream` sends 10 MiB, `/call?AUTHORITY` asks another server
//! and answers with what it says.

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::wit_bindgen::{StreamReader, spawn_local};
use wasip3::{wit_future, wit_stream};

/// How much is written at a time.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 160;

wasip3::http::service::export!(Server);

struct Server;

impl wasip3::exports::http::handler::Guest for Server {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => {
                let (_, consumed) = wit_future::new(|| Ok(()));
                let (body, _trailers) = Request::consume_body(request, consumed);
                let bytes = body.collect().await;
                let value: serde_json::Value =
                    serde_json::from_slice(&bytes).expect("JSON is sent");
                let text = serde_json::to_vec(&value).expect("JSON can be written");
                Ok(respond(200, text, 1))
            }
            "/stream" => Ok(respond(200, vec![b'.'; CHUNK], CHUNKS)),
            "/call" => Ok(respond(200, call(query).await?.collect().await, 1)),
            _ => Ok(respond(404, Vec::new(), 0)),
        }
    }
}

async fn call(authority: &str) -> Result<StreamReader<u8>, ErrorCode> {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some("/")))
        .expect("an address");
    let response = client::send(request).await?;
    let (_, consumed) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Response::consume_body(response, consumed);
    Ok(body)
}

/// Sends `bytes` so many times.
fn respond(status: u16, bytes: Vec<u8>, times: usize) -> Response {
    let (mut writer, body) = wit_stream::new();
    spawn_local(async move {
        for _ in 0..times {
            // What is left over, a client that went away did not want.
            if !writer.write_all(bytes.clone()).await.is_empty() {
                return;
            }
        }
    });
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    response.set_status_code(status).expect("a status");
    response
}
