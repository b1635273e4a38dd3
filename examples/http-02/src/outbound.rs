//! A request of our own, through `wasi:http/outgoing-handler`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, IncomingBody, OutgoingRequest, Scheme};

/// Fetches `url` and returns the status and the body, not yet read.
pub fn get(url: &str) -> Result<(u16, IncomingBody), String> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => return Err(format!("{url:?} is no http or https address")),
    };
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };

    let request = OutgoingRequest::new(Fields::new());
    let refused = |()| format!("{url:?} is not acceptable as an address");
    request.set_scheme(Some(&scheme)).map_err(refused)?;
    request.set_authority(Some(authority)).map_err(refused)?;
    request.set_path_with_query(Some(path)).map_err(refused)?;

    let pending = outgoing_handler::handle(request, None).map_err(|e| e.to_string())?;
    pending.subscribe().block();
    let response = match pending.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(e))) => return Err(e.to_string()),
        Some(Err(())) | None => return Err("the response was not there when announced".into()),
    };
    let body = response
        .consume()
        .map_err(|()| "the response has no body".to_owned())?;
    Ok((response.status(), body))
}
