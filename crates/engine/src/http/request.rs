//! One request, from its head to the end of what the guest does for it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::uri::{Authority, PathAndQuery, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use wasmtime_wasi_http::WasiBody;
use wisp_capability::HttpServer;

use super::activity::Activity;
use super::answer::{Answer, last, plain};
use super::body::{Limited, Recorded};
use super::instances::Instances;
use super::record::{Record, Records};
use super::ticker::{Serving, Ticker};
use super::trace::Traces;
use super::turns::{Turn, Turns};
use crate::exit::complain;

/// Answers requests.
pub struct Service {
    pub instances: Instances,
    pub settings: Arc<HttpServer>,
    pub ticker: Arc<Ticker>,
    pub turns: Arc<Turns>,
    pub records: Arc<Records>,
    /// Where spans are exported.
    pub traces: Option<Arc<Traces>>,
}

/// A sender of nothing, whose end tells that some work is over.
pub type Working = mpsc::Sender<Infallible>;

/// What a guest at work holds.
pub struct Held {
    _turn: Turn,
    _working: Working,
    _serving: Serving,
}

/// How a guest was kept from going on.
struct TooLong {
    limit: Duration,
    answered: bool,
}

impl Service {
    /// The same for another thread.
    pub fn beside(&self) -> Self {
        Self {
            instances: self.instances.beside(),
            settings: self.settings.clone(),
            ticker: self.ticker.clone(),
            turns: self.turns.clone(),
            records: self.records.clone(),
            traces: self.traces.as_ref().map(|traces| traces.beside()),
        }
    }

    /// Answers `request` of `client`. Errors of the guest are told on stderr,
    /// and to the client as a status.
    pub async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        client: SocketAddr,
        activity: Arc<Activity>,
        working: Working,
    ) -> Response<Recorded> {
        let busy = activity.request(request.version() == Version::HTTP_2);
        let mut record = Record::new(&self.records, &request, client, busy);
        if let Some(traces) = &self.traces {
            record.traced(traces.receive(&mut request, client, record.begun()));
        }
        let response = self.respond(request, record.begun(), working).await;
        record.status(response.status());
        response.map(|body| Recorded::new(body, record))
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        begun: Instant,
        working: Working,
    ) -> Response<WasiBody> {
        if self.is_probe(&request) {
            return plain(StatusCode::OK, "ok\n");
        }
        let http1 = request.version() < Version::HTTP_2;
        if request.method() == Method::CONNECT {
            let text = "this server makes no tunnels\n";
            return last(StatusCode::NOT_IMPLEMENTED, text, http1);
        }
        // The length it says it has; of chunked bodies, none.
        if request.body().size_hint().lower() > self.settings.max_body {
            return last(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, http1);
        }
        let request = match with_authority(request) {
            Ok(request) => request,
            Err(problem) => return last(StatusCode::BAD_REQUEST, problem, http1),
        };
        let Some(turn) = self.turns.take(self.settings.request_timeout).await else {
            self.records.metrics.turned_away.add(1);
            return later("too many requests\n");
        };
        let exceeded = Arc::new(AtomicBool::new(false));
        let request = request.map(|body| {
            Limited::new(body, self.settings.max_body, exceeded.clone()).boxed_unsync()
        });
        let (answer, answered) = Answer::new();
        // A client that waits to be asked for its body is asked when the connection
        // sees that the guest wants it, and that the response has not begun.
        let waits = request.headers().contains_key(header::EXPECT);
        let mut work = Box::pin(self.work(request, begun, Arc::new(answer), turn, working));
        // Most guests have done all their work when they first stop. Otherwise a
        // task of its own: the guest goes on while the body is being sent, and
        // after it, even if the client leaves.
        if waits || !poll_fn(|context| Poll::Ready(work.as_mut().poll(context).is_ready())).await {
            tokio::spawn(work);
        }
        let answered = answered.await;
        if exceeded.load(Relaxed) {
            return last(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, http1);
        }
        match answered {
            Ok(response) if response.status().is_informational() => {
                complain("guest answers with an informational status, which is not a response");
                plain(StatusCode::BAD_GATEWAY, "the component gave no response\n")
            }
            Ok(response) => response,
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the component failed\n"),
        }
    }

    fn is_probe(&self, request: &Request<Incoming>) -> bool {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        asks && self.settings.health.as_deref() == Some(request.uri().path())
    }

    /// Has the guest work for as long as it may.
    async fn work(
        self: Arc<Self>,
        request: Request<WasiBody>,
        begun: Instant,
        answer: Arc<Answer>,
        turn: Turn,
        working: Working,
    ) {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let held = Held {
            _turn: turn,
            _working: working.clone(),
            _serving: self.ticker.serve(),
        };
        let ended = self.limited(request, begun, &answer, held).await;
        let metrics = &self.records.metrics;
        let problem = match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("guest failed: {error:?}")),
            Err(TooLong { limit, answered }) => {
                metrics.timed_out.add(1);
                Some(match answered {
                    false => format!("guest was ended: no response after {limit:?}"),
                    true => format!("guest was ended: still at work after {limit:?}"),
                })
            }
        };
        if let Some(problem) = problem {
            complain(&format!("{method} {}: {problem}", uri.path()));
            let budget = &self.instances.maker.surroundings.budget;
            if let Some(refused) = budget.take_refusal(begun) {
                complain(&format!("{method} {}: {refused}", uri.path()));
                // When other requests are over, there is room again.
                if refused.may_pass() {
                    answer.give(later("no memory for this request at the moment\n"));
                }
            }
        }
        answer.give_up();
        drop(working);
    }

    async fn limited(
        &self,
        request: Request<WasiBody>,
        begun: Instant,
        answer: &Arc<Answer>,
        held: Held,
    ) -> Result<wasmtime::Result<()>, TooLong> {
        let HttpServer {
            request_timeout,
            work_timeout,
            ..
        } = *self.settings;
        let mut guest = pin!(self.instances.serve(request, answer, held));
        let mut deadline = pin!(sleep_until((begun + request_timeout).into()));
        loop {
            // What is not polled to its end is dropped, and with it the guest:
            // one that computes comes back at the next tick.
            tokio::select! {
                biased;
                result = &mut guest => return Ok(result),
                () = &mut deadline => {}
            }
            if !answer.is_given() {
                let text = "the component did not answer in time\n";
                answer.give(plain(StatusCode::GATEWAY_TIMEOUT, text));
                return Err(TooLong {
                    limit: request_timeout,
                    answered: false,
                });
            }
            if begun.elapsed() >= work_timeout {
                return Err(TooLong {
                    limit: work_timeout,
                    answered: true,
                });
            }
            deadline.as_mut().reset((begun + work_timeout).into());
        }
    }
}

/// That it could be otherwise in a second.
fn later(text: &'static str) -> Response<WasiBody> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

const TOO_LARGE: &str = "the request's body is too large\n";

/// The request with scheme and authority in its URI, as guests expect it.
fn with_authority<B>(request: Request<B>) -> Result<Request<B>, &'static str> {
    let (mut parts, body) = request.into_parts();
    let mut uri = parts.uri.into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("the request has more than one Host header\n");
    }
    if uri.authority.is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_authority() {
        let with = |target: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(target);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            with_authority(request.body(()).expect("request"))
                .map(|request| request.uri().to_string())
        };
        assert_eq!(with("/a?b", &["x:1"]), Ok("http://x:1/a?b".into()));
        assert_eq!(with("http://y/a", &["x"]), Ok("http://y/a".into()));
        for hosts in [&[][..], &["a b"], &["x", "x"]] {
            assert!(with("/", hosts).is_err(), "{hosts:?}");
        }
    }
}
