//! The least that a server can do, with `wasi:http/handler` 0.3.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Server);

struct Server;

impl wasip3::exports::http::handler::Guest for Server {
    async fn handle(_: Request) -> Result<Response, ErrorCode> {
        let (mut writer, body) = wit_stream::new();
        spawn_local(async move {
            // Whoever asked sees what is missing.
            writer.write_all(b"hello\n".to_vec()).await;
        });
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
        Ok(response)
    }
}
