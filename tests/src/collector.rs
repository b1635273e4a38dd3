//! A collector of spans, as OTLP over HTTP reaches one. Its messages are its own,
//! with the numbers that `opentelemetry/proto` gives their fields.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use prost::Message;

use crate::server::Server;
use crate::wait::{self, PATIENCE};

/// The collector, as long as it lives.
pub struct Collector {
    server: Server,
    status: Arc<AtomicU16>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: usize,
    spans: Vec<Span>,
    /// What is wrong with requests.
    problems: Vec<String>,
}

/// What was told of a span.
#[derive(Debug, Clone)]
pub struct Span {
    /// Numbers of traces and spans are as `traceparent` writes them.
    pub trace: String,
    pub number: String,
    /// Empty where there is none.
    pub parent: String,
    pub is_parent_remote: bool,
    pub state: String,
    pub name: String,
    /// As OpenTelemetry counts: 1 internal, 2 server, 3 client.
    pub kind: i32,
    pub begun: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    /// What the service as a whole is known by.
    pub resource: BTreeMap<String, String>,
    pub is_error: bool,
}

impl Span {
    /// The text of an attribute, or nothing.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// What `traceparent` says of it where it is recorded.
    pub fn context(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.number)
    }
}

impl Collector {
    /// One that takes everything.
    ///
    /// # Errors
    /// What keeps it from listening.
    pub fn start() -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let status = Arc::new(AtomicU16::new(200));
        let (own, says) = (seen.clone(), status.clone());
        let server = Server::start(
            None,
            Arc::new(move |request| answer(&request, says.load(SeqCst), &own)),
        )?;
        Ok(Self {
            server,
            status,
            seen,
        })
    }

    /// Where it is, as the environment says it and a rule grants it.
    pub fn place(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    /// Answers with `status` from now on; what it does not take is not noted.
    pub fn answer_with(&self, status: u16) {
        self.status.store(status, SeqCst);
    }

    /// How many requests there have been.
    pub fn requests(&self) -> usize {
        self.seen().requests
    }

    /// Waits until spans are there of which `enough` says that they are enough.
    ///
    /// # Errors
    /// They do not come, or something else does.
    pub fn until(&self, enough: impl Fn(&[Span]) -> bool) -> Result<Vec<Span>> {
        let found = wait::until(PATIENCE, || {
            let seen = self.seen();
            (!seen.problems.is_empty() || enough(&seen.spans)).then_some(())
        });
        let seen = self.seen();
        anyhow::ensure!(seen.problems.is_empty(), "{:?}", seen.problems);
        found.with_context(|| format!("spans are missing: {:#?}", seen.spans))?;
        Ok(seen.spans.clone())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(request: &Request<Bytes>, status: u16, seen: &Mutex<Seen>) -> Response<Full<Bytes>> {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.requests += 1;
    if status == 200 {
        match spans(request) {
            Ok(spans) => seen.spans.extend(spans),
            Err(error) => seen.problems.push(format!("{error:#}")),
        }
    }
    let mut response = Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    response
}

fn spans(request: &Request<Bytes>) -> Result<Vec<Span>> {
    let asked = (request.method().as_str(), request.uri().path());
    anyhow::ensure!(asked == ("POST", "/v1/traces"), "{asked:?}");
    let kind = request.headers().get("content-type");
    anyhow::ensure!(
        kind.is_some_and(|kind| kind == "application/x-protobuf"),
        "{kind:?}"
    );
    let export = Export::decode(request.body().clone())?;
    let mut spans = Vec::new();
    for one in export.resources {
        let resource = texts(one.resource.unwrap_or_default().attributes);
        for span in one.scopes.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                trace: hex(&span.trace),
                number: hex(&span.number),
                parent: hex(&span.parent),
                is_parent_remote: span.flags & 0x200 != 0,
                state: span.state,
                name: span.name,
                kind: span.kind,
                begun: span.begun,
                ended: span.ended,
                attributes: texts(span.attributes),
                resource: resource.clone(),
                is_error: span.status.is_some_and(|status| status.code == 2),
            });
        }
    }
    Ok(spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(pairs: Vec<Pair>) -> BTreeMap<String, String> {
    let text = |value: Value| match value.one {
        Some(One::Text(text)) => text,
        Some(One::Number(number)) => number.to_string(),
        None => String::new(),
    };
    let pair = |pair: Pair| (pair.key, pair.value.map_or_else(String::new, text));
    pairs.into_iter().map(pair).collect()
}

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Told>,
}

#[derive(Clone, PartialEq, Message)]
struct Told {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    number: Vec<u8>,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    begun: u64,
    #[prost(fixed64, tag = "8")]
    ended: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Pair>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(oneof = "One", tags = "1, 3")]
    one: Option<One>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum One {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}
