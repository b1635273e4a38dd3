//! Spans as OpenTelemetry's semantic conventions for HTTP have them, version 1.30
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

use http::uri::Authority;
use http::{Method, Version};

use super::message::{
    AnyValue, Export, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
    Span as Message, SpanKind, Status, StatusCode, Value,
};
use super::span::{Called, Head, Outcome, Served, Span, Step, What};

const SCHEMA: &str = "https://opentelemetry.io/schemas/1.30.0";

/// That it is known where a span's parent is, and that it is elsewhere
/// (`SpanFlags`).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Methods that may be a span's name; of others there are too many.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Parameters of a query whose values are as good as passwords.
const SECRET: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];

/// What is sent to tell of `spans`.
pub fn export(resource: &[(String, String)], spans: Vec<Span>) -> Export {
    let mut attributes = Attributes::default();
    for (name, value) in resource {
        attributes.text(name, value);
    }
    Export {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes.0,
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "wisp".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }),
                spans: spans.into_iter().map(message).collect(),
                schema_url: SCHEMA.to_owned(),
            }],
        }],
    }
}

fn message(span: Span) -> Message {
    let mut attributes = Attributes::default();
    let (name, kind, status) = match &span.what {
        What::Served(served) => of_served(served, &mut attributes),
        What::Called(called) => of_called(called, &mut attributes),
        What::Step(step) => of_step(step, &mut attributes),
    };
    let remote = match span.parent {
        Some(parent) if parent.is_remote => HAS_IS_REMOTE | IS_REMOTE,
        _ => HAS_IS_REMOTE,
    };
    Message {
        trace_id: span.context.trace.0.to_vec(),
        span_id: span.context.span.0.to_vec(),
        trace_state: span.state.as_deref().unwrap_or_default().to_owned(),
        parent_span_id: span
            .parent
            .map_or_else(Vec::new, |parent| parent.span.0.to_vec()),
        flags: u32::from(span.context.flags()) | remote,
        name,
        kind: kind.into(),
        start_time_unix_nano: span.begun,
        end_time_unix_nano: span.ended,
        attributes: attributes.0,
        status,
    }
}

type Described = (String, SpanKind, Option<Status>);

fn of_served(served: &Served, attributes: &mut Attributes) -> Described {
    let Served {
        request,
        client,
        agent,
        status,
        broken,
    } = served;
    let name = attributes.method(request);
    attributes.text("url.scheme", scheme(request));
    attributes.text("url.path", &request.path);
    if let Some(query) = &request.query {
        attributes.text("url.query", &redacted(query));
    }
    attributes.server(request);
    let address = client.ip().to_canonical().to_string();
    attributes.text("client.address", &address);
    attributes.text("network.peer.address", &address);
    attributes.number("network.peer.port", client.port());
    attributes.version(request.version);
    if let Some(agent) = agent {
        attributes.text("user_agent.original", agent);
    }
    if let Some(status) = status {
        attributes.number("http.response.status_code", *status);
    }
    // What a client did wrong is no error of the server's.
    let error = match status {
        Some(status) if *status >= 500 => Some(status.to_string()),
        Some(_) => broken.then(|| "response_incomplete".to_owned()),
        None => Some("client_disconnected".to_owned()),
    };
    let status = error.map(|error| attributes.error(&error, ""));
    (name, SpanKind::Server, status)
}

fn of_called(called: &Called, attributes: &mut Attributes) -> Described {
    let Called { request, outcome } = called;
    let name = attributes.method(request);
    let authority = request.authority.as_deref().unwrap_or_default();
    let mut url = format!("{}://{authority}{}", scheme(request), request.path);
    if let Some(query) = &request.query {
        url.push('?');
        url.push_str(&redacted(query));
    }
    attributes.text("url.full", &url);
    attributes.server(request);
    let error = match outcome {
        Outcome::Response(status, version) => {
            attributes.version(*version);
            attributes.number("http.response.status_code", *status);
            (*status >= 400).then(|| status.to_string())
        }
        Outcome::Failed(name) => Some((*name).to_owned()),
        Outcome::GivenUp => Some("cancelled".to_owned()),
    };
    let status = error.map(|error| attributes.error(&error, ""));
    (name, SpanKind::Client, status)
}

fn of_step(step: &Step, attributes: &mut Attributes) -> Described {
    let problem = step.problem.as_ref();
    let status = problem.map(|problem| attributes.error(&problem.kind, &problem.text));
    (step.name.to_owned(), SpanKind::Internal, status)
}

fn scheme(request: &Head) -> &'static str {
    match request.is_tls {
        true => "https",
        false => "http",
    }
}

/// The query without the values that nobody should see.
fn redacted(query: &str) -> String {
    let parameters = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if SECRET.contains(&name) => format!("{name}=REDACTED"),
            _ => parameter.to_owned(),
        });
    parameters.collect::<Vec<_>>().join("&")
}

/// What is said of a span.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: &str) {
        self.push(key, Value::String(value.to_owned()));
    }

    fn number(&mut self, key: &str, value: u16) {
        self.push(key, Value::Int(value.into()));
    }

    fn push(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        });
    }

    /// Gives the span's name, too: without knowing the routes of the guest, there
    /// is nothing else that few spans have in common.
    fn method(&mut self, request: &Head) -> String {
        let method = request.method.as_str();
        if METHODS.contains(&request.method) {
            self.text("http.request.method", method);
            return method.to_owned();
        }
        self.text("http.request.method", "_OTHER");
        self.text("http.request.method_original", method);
        "HTTP".to_owned()
    }

    fn server(&mut self, request: &Head) {
        let authority = request.authority.as_deref();
        let Some(Ok(authority)) = authority.map(str::parse::<Authority>) else {
            return;
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        self.text("server.address", host);
        let default = if request.is_tls { 443 } else { 80 };
        self.number("server.port", authority.port_u16().unwrap_or(default));
    }

    fn version(&mut self, version: Version) {
        let text = match version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        self.text("network.protocol.version", text);
    }

    fn error(&mut self, kind: &str, text: &str) -> Status {
        self.text("error.type", kind);
        Status {
            message: text.to_owned(),
            code: StatusCode::Error.into(),
        }
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
