//! One request, one fresh instance.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings as http2;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings as http3;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use super::ticker::Ticker;
use crate::exit::complain;
use crate::guest::Guest;
use crate::setup::Surroundings;

/// A component that answers requests.
pub enum Handler {
    P2(http2::ProxyPre<Guest>),
    P3(http3::ServicePre<Guest>),
}

/// Answers requests, each with an instance of its own.
pub struct Service {
    pub engine: Engine,
    pub handler: Handler,
    pub surroundings: Surroundings,
    pub ticker: Arc<Ticker>,
}

/// A sender of nothing, whose end tells that some work is over.
pub type Working = mpsc::Sender<Infallible>;

/// Where the response goes, once, as soon as it begins.
type Answer = oneshot::Sender<Response<WasiBody>>;

impl Service {
    /// Answers `request`. Errors of the guest are told on stderr, and to the
    /// client as status 500.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        working: Working,
    ) -> Response<WasiBody> {
        let title = format!("{} {}", request.method(), request.uri().path());
        let request = match with_authority(request) {
            Ok(request) => request.map(|body| body.map_err(Into::into).boxed_unsync()),
            Err(problem) => return plain(StatusCode::BAD_REQUEST, problem),
        };
        let (answer, answered) = oneshot::channel();
        // A task of its own: the guest goes on while the body is being sent,
        // and after it, even if the client leaves.
        tokio::spawn(async move {
            let _serving = self.ticker.serve();
            if let Err(error) = self.serve(request, answer).await {
                complain(&format!("{title}: guest failed: {error:?}"));
                if let Some(reason) = self.surroundings.budget.take_refusal() {
                    complain(&format!("{title}: {reason}"));
                }
            }
            drop(working);
        });
        match answered.await {
            Ok(response) => response,
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the component failed\n"),
        }
    }

    async fn serve(&self, request: Request<WasiBody>, answer: Answer) -> wasmtime::Result<()> {
        let mut store =
            Guest::store(&self.engine, &self.surroundings).map_err(wasmtime::Error::msg)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        match &self.handler {
            Handler::P2(handler) => serve2(handler, store, request, answer).await,
            Handler::P3(handler) => serve3(handler, store, request, answer).await,
        }
    }
}

async fn serve2(
    handler: &http2::ProxyPre<Guest>,
    mut store: Store<Guest>,
    request: Request<WasiBody>,
    answer: Answer,
) -> wasmtime::Result<()> {
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(Scheme::Http, request)?;
    let answered = Arc::new(AtomicBool::new(false));
    let noted = answered.clone();
    let response = store
        .data_mut()
        .http()
        .new_response_outparam_from_callback(move |response| {
            noted.store(true, Relaxed);
            match response {
                // The client may have left; then nobody waits for it.
                Ok(response) => drop(answer.send(response)),
                Err(code) => complain(&format!("guest answers with an error: {code:?}")),
            }
        })?;
    let proxy = handler.instantiate_async(&mut store).await?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut store, request, response)
        .await?;
    if !answered.load(Relaxed) {
        wasmtime::bail!("it ended without setting a response");
    }
    Ok(())
}

async fn serve3(
    handler: &http3::ServicePre<Guest>,
    mut store: Store<Guest>,
    request: Request<WasiBody>,
    answer: Answer,
) -> wasmtime::Result<()> {
    let service = handler.instantiate_async(&mut store).await?;
    let (request, received) = p3::Request::from_http(store.data_mut().http().hooks, request);
    store
        .run_concurrent(async |store| {
            match service.handle(store, request).await? {
                Ok(response) => {
                    let response = store.with(|store| response.into_http(store, received))?;
                    // The client may have left; then nobody waits for it.
                    drop(answer.send(response));
                }
                Err(code) => {
                    complain(&format!("guest answers with an error: {code:?}"));
                    drop(answer);
                }
            }
            // The body is still being made, and the guest may have more to do.
            poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
            Ok(())
        })
        .await?
}

/// The request with scheme and authority in its URI, as guests expect it.
fn with_authority(request: Request<Incoming>) -> Result<Request<Incoming>, &'static str> {
    let (mut parts, body) = request.into_parts();
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    if uri.authority.is_none() {
        let host = parts.headers.get(http::header::HOST);
        uri.authority = Some(
            host.and_then(|host| Authority::try_from(host.as_bytes()).ok())
                .ok_or("the request has no valid Host header\n")?,
        );
    }
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    parts.uri = Uri::from_parts(uri).map_err(|_| "the request target is not valid\n")?;
    Ok(Request::from_parts(parts, body))
}

fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
