//! One request and its response on a connection.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::{Request, Response, Version};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::{Error, WasiBody};

use super::errors;
use super::kept::{Kept, Link, Peer, Wire};
use super::received::Received;
use super::sent::Sent;
use super::target::Target;

/// Why there is no response.
pub struct Failure {
    pub error: Error,
    /// The connection ended, and nothing had been answered.
    pub broken: bool,
    /// The request, where nothing of it was sent.
    pub unsent: Option<Box<Request<Sent>>>,
}

/// Sends `request` and keeps the connection for the next one to `target`.
///
/// `pause` is how long the response may take between two pieces.
pub async fn exchange(
    link: Link,
    request: Request<Sent>,
    target: &Target,
    kept: &Arc<Kept>,
    first_byte: Option<Instant>,
    pause: Duration,
) -> Result<Response<WasiBody>, Failure> {
    let Link { wire, peer, made } = link;
    match wire {
        Wire::One(mut sender) => {
            let request = match peer {
                Peer::Target(_) => with_path_only(request),
                Peer::Proxy(_) if target.is_tls() => with_path_only(request),
                // A proxy is told whom it is for.
                Peer::Proxy(_) => request,
            };
            let response = in_time(sender.try_send_request(request), first_byte).await?;
            let (over, free) = oneshot::channel();
            let (kept, target) = (kept.clone(), target.clone());
            tokio::spawn(async move {
                if sender.ready().await.is_ok() {
                    let wire = Wire::One(sender);
                    kept.put(target, Link { wire, peer, made });
                }
                drop(over);
            });
            Ok(response.map(|body| Received::new(body, pause, Some(free), None).boxed_unsync()))
        }
        Wire::Many(mut sender, in_use) => {
            let request = with_authority_only(request);
            let response = in_time(sender.try_send_request(request), first_byte).await?;
            Ok(response.map(|body| Received::new(body, pause, None, Some(in_use)).boxed_unsync()))
        }
    }
}

impl Failure {
    pub fn of(error: Error) -> Self {
        Self {
            error,
            broken: false,
            unsent: None,
        }
    }
}

async fn in_time(
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Sent>>>>,
    deadline: Option<Instant>,
) -> Result<Response<Incoming>, Failure> {
    let answer = match deadline {
        None => answer.await,
        Some(deadline) => timeout_at(deadline, answer)
            .await
            .map_err(|_| Failure::of(Error::ConnectionReadTimeout))?,
    };
    answer.map_err(|mut error| {
        let unsent = error.take_message().map(Box::new);
        let error = errors::of_exchange(error.into_error());
        Failure {
            broken: matches!(error, Error::ConnectionTerminated),
            error,
            unsent,
        }
    })
}

/// A server of HTTP/1 wants the path, and the host in a field.
fn with_path_only(mut request: Request<Sent>) -> Request<Sent> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
    request
}

/// A server of HTTP/2 wants the host beside the path, and in no field.
fn with_authority_only(mut request: Request<Sent>) -> Request<Sent> {
    request.headers_mut().remove(header::HOST);
    *request.version_mut() = Version::HTTP_2;
    request
}
