//! What probes and Prometheus ask.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::say;
use crate::state::Shared;

/// How many may ask at once; others wait.
const CONNECTIONS: usize = 32;
/// How long one connection may take in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers from now on.
///
/// # Errors
/// When the address cannot be had.
pub async fn listen(address: SocketAddr, shared: Arc<Shared>) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let at = listener.local_addr().context("listen")?;
    say(&format!("listening on {at}"));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of descriptors: some come back.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = answer(&request, &shared);
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = tokio::time::timeout(PATIENCE, connection).await;
                drop(place);
            });
        }
    });
    Ok(())
}

fn answer<B>(request: &Request<B>, shared: &Shared) -> Response<Full<Bytes>> {
    let state = shared.lock();
    let (status, text) = match request.uri().path() {
        _ if request.method() != Method::GET && request.method() != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned())
        }
        "/healthz" if state.hangs() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no sign of life for a long time\n".to_owned(),
        ),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match &state.not_ready {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/metrics" => (StatusCode::OK, state.metrics()),
        _ => (
            StatusCode::NOT_FOUND,
            "/healthz, /readyz, /metrics\n".to_owned(),
        ),
    };
    drop(state);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, shared: &Shared) -> StatusCode {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().expect("a path");
        answer(&request, shared).status()
    }

    #[test]
    fn probes_hear_of_the_state() {
        let shared = Shared::default();
        assert_eq!(ask("/healthz", &shared), StatusCode::OK);
        assert_eq!(ask("/readyz", &shared), StatusCode::SERVICE_UNAVAILABLE);
        shared.lock().prove();
        assert_eq!(ask("/readyz", &shared), StatusCode::OK);
        assert_eq!(ask("/metrics", &shared), StatusCode::OK);
        assert_eq!(ask("/", &shared), StatusCode::NOT_FOUND);
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/healthz".parse().expect("a path");
        assert_eq!(
            answer(&request, &shared).status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
