//! A request of our own, through `wasi:http/client`.

use wasip3::http::client;
use wasip3::http::types::{Fields, Request, Response, Scheme};
use wasip3::wit_bindgen::StreamReader;
use wasip3::wit_future;

/// Fetches `url` and returns the status and the body, not yet read.
pub async fn get(url: &str) -> Result<(u16, StreamReader<u8>), String> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => return Err(format!("{url:?} is no http or https address")),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };

    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let refused = |()| format!("{url:?} is not acceptable as an address");
    request.set_scheme(Some(&scheme)).map_err(refused)?;
    request.set_authority(Some(authority)).map_err(refused)?;
    request.set_path_with_query(Some(path)).map_err(refused)?;

    let response = client::send(request).await.map_err(|e| e.to_string())?;
    let status = response.get_status_code();
    let (_, consumed) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Response::consume_body(response, consumed);
    Ok((status, body))
}
