//! Where metrics are read.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connections::RECOVERY;
use super::metrics::Gauges;
use super::request::Service;

const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Readers at once, and how long each may take. There is rarely more than one.
const READERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers at `/metrics` for ever.
pub async fn serve(service: Arc<Service>, listener: TcpListener) -> Infallible {
    let readers = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(RECOVERY).await;
            continue;
        };
        let Ok(reader) = readers.clone().try_acquire_owned() else {
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let response = answer(&service, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // What becomes of it is the reader's business.
            let _ = timeout(PATIENCE, connection).await;
            drop(reader);
        });
    }
}

fn answer<B>(service: &Service, request: &Request<B>) -> Response<String> {
    let plain = |status, text: &str| {
        let mut response = Response::new(text.to_owned());
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "metrics are read with GET\n",
        );
    }
    let surroundings = &service.instances.maker.surroundings;
    let gauges = Gauges {
        queued: u64::from(service.turns.waiting()),
        memory: surroundings.budget.used(),
        refused: surroundings.network.refusals.count(),
    };
    let mut text = service.records.metrics.text(&gauges);
    if let Some(traces) = &service.traces {
        traces.counts().write(&mut text);
    }
    let mut response = Response::new(text);
    response.headers_mut().insert(CONTENT_TYPE, FORMAT);
    response
}
