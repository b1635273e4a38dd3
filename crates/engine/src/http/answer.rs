//! The one response of a request.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode, header};
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;

/// Where a response goes, once, as soon as it begins.
pub struct Answer(Mutex<Option<oneshot::Sender<Response<WasiBody>>>>);

impl Answer {
    pub fn new() -> (Self, oneshot::Receiver<Response<WasiBody>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// Answers, if nobody has.
    pub fn give(&self, response: Response<WasiBody>) {
        if let Some(sender) = self.sender().take() {
            // The client may have left; then nobody waits for it.
            let _ = sender.send(response);
        }
    }

    /// Says that there will be no response.
    pub fn give_up(&self) {
        self.sender().take();
    }

    /// Whether it has been decided.
    pub fn is_given(&self) -> bool {
        self.sender().is_none()
    }

    fn sender(&self) -> MutexGuard<'_, Option<oneshot::Sender<Response<WasiBody>>>> {
        // It is there or not, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response of the host's own.
pub fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// The same, after which an HTTP/1 connection ends: the rest of the request is
/// not going to be read.
pub fn last(status: StatusCode, text: &'static str, http1: bool) -> Response<WasiBody> {
    let mut response = plain(status, text);
    if http1 {
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
