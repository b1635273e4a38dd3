use std::sync::Arc;

use prost::Message as _;

use super::super::context::{SpanContext, SpanId, TraceId};
use super::super::span::{Parent, Problem};
use super::*;

fn head(method: Method, uri: &str) -> Head {
    let uri = uri.parse().expect("uri");
    Head::new(&method, &uri, Some(b"a.example:81"), Version::HTTP_11)
}

fn span(what: What) -> Span {
    Span {
        context: SpanContext {
            trace: TraceId([0xab; 16]),
            span: SpanId([1; 8]),
            sampled: true,
        },
        parent: Some(Parent {
            span: SpanId([2; 8]),
            is_remote: true,
        }),
        state: Some(Arc::from("a=b")),
        begun: 1,
        ended: 2,
        what,
    }
}

fn served(request: Head, status: Option<u16>, broken: bool) -> What {
    What::Served(Served {
        request,
        client: "[::ffff:10.0.0.1]:5000".parse().expect("address"),
        agent: Some("curl".into()),
        status,
        broken,
    })
}

fn called(uri: &str, outcome: Outcome) -> What {
    What::Called(Called {
        request: head(Method::GET, uri),
        outcome,
    })
}

/// The message of one span, its attributes as `name=value`, and its error.
fn written(what: What) -> (Message, String) {
    let mut export = export(&[], vec![span(what)]);
    let mut scopes = export.resource_spans.remove(0).scope_spans;
    let message = scopes.remove(0).spans.remove(0);
    let attributes = message.attributes.iter().map(|attribute| {
        let value = attribute.value.clone().and_then(|value| value.value);
        match value.expect("value") {
            Value::String(text) => format!("{}={text}", attribute.key),
            Value::Int(number) => format!("{}={number}", attribute.key),
        }
    });
    let attributes = attributes.collect::<Vec<_>>().join(" ");
    (message, attributes)
}

fn is_error(message: &Message) -> bool {
    let status = message.status.as_ref();
    status.is_some_and(|status| status.code == i32::from(StatusCode::Error))
}

#[test]
fn a_request_that_was_answered_has_the_attributes_of_a_server() {
    let request = head(Method::POST, "/a?b=c&sig=secret");
    let (message, attributes) = written(served(request, Some(404), false));
    assert_eq!(message.name, "POST");
    assert_eq!(message.kind(), SpanKind::Server);
    assert_eq!(message.flags, 0x301);
    assert!(message.status.is_none());
    let expected = "http.request.method=POST url.scheme=http url.path=/a \
        url.query=b=c&sig=REDACTED server.address=a.example server.port=81 \
        client.address=10.0.0.1 network.peer.address=10.0.0.1 network.peer.port=5000 \
        network.protocol.version=1.1 user_agent.original=curl http.response.status_code=404";
    assert_eq!(attributes, expected);
}

#[test]
fn what_goes_wrong_is_an_error_of_a_known_kind() {
    for (status, broken, kind) in [
        (Some(200), false, None),
        (Some(499), false, None),
        (Some(500), false, Some("500")),
        (Some(200), true, Some("response_incomplete")),
        (None, false, Some("client_disconnected")),
    ] {
        let (message, attributes) = written(served(head(Method::GET, "/"), status, broken));
        let found = attributes
            .split(' ')
            .find_map(|one| one.strip_prefix("error.type="));
        assert_eq!(found, kind);
        assert_eq!(is_error(&message), kind.is_some());
    }
    let (message, attributes) = written(What::Step(Step {
        name: "handle",
        problem: Some(Problem {
            kind: "UnreachableCodeReached".into(),
            text: "why".into(),
        }),
    }));
    assert_eq!(message.name, "handle");
    assert_eq!(message.kind(), SpanKind::Internal);
    assert_eq!(
        message.status.map(|status| status.message).as_deref(),
        Some("why")
    );
    assert_eq!(attributes, "error.type=UnreachableCodeReached");
}

#[test]
fn methods_that_nobody_knows_are_no_names() {
    let method = Method::from_bytes(b"BREW").expect("method");
    let (message, attributes) = written(served(head(method, "/"), Some(200), false));
    assert_eq!(message.name, "HTTP");
    let expected = "http.request.method=_OTHER http.request.method_original=BREW";
    assert!(attributes.starts_with(expected), "{attributes}");
}

#[test]
fn a_request_that_was_made_has_the_attributes_of_a_client() {
    let response = Outcome::Response(404, Version::HTTP_2);
    let (message, attributes) = written(called("https://[::1]/x?y=z", response));
    assert_eq!((&*message.name, message.kind()), ("GET", SpanKind::Client));
    assert!(is_error(&message));
    let expected = "http.request.method=GET url.full=https://[::1]/x?y=z server.address=::1 \
        server.port=443 network.protocol.version=2 http.response.status_code=404 error.type=404";
    assert_eq!(attributes, expected);
    for (outcome, kind) in [
        (Outcome::Failed("connection-refused"), "connection-refused"),
        (Outcome::GivenUp, "cancelled"),
    ] {
        let (message, attributes) = written(called("http://b/", outcome));
        assert!(is_error(&message));
        assert!(
            attributes.ends_with(&format!("error.type={kind}")),
            "{attributes}"
        );
    }
}

#[test]
fn json_has_numbers_as_it_can_hold_them() {
    let step = What::Step(Step {
        name: "handle",
        problem: None,
    });
    let resource = [("service.name".to_owned(), "a".to_owned())];
    let mut export = export(&resource, vec![span(step)]);
    let span = &mut export.resource_spans[0].scope_spans[0].spans[0];
    let mut attributes = Attributes::default();
    attributes.number("n", 7);
    span.attributes = attributes.0;
    let json = serde_json::to_value(&export).expect("json");
    let expected = serde_json::json!({ "resourceSpans": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": "a" } },
        ] },
        "scopeSpans": [{
            "scope": { "name": "wisp", "version": env!("CARGO_PKG_VERSION") },
            "schemaUrl": SCHEMA,
            "spans": [{
                "traceId": "abababababababababababababababab",
                "spanId": "0101010101010101",
                "traceState": "a=b",
                "parentSpanId": "0202020202020202",
                "flags": 0x301,
                "name": "handle",
                "kind": 1,
                "startTimeUnixNano": "1",
                "endTimeUnixNano": "2",
                "attributes": [{ "key": "n", "value": { "intValue": "7" } }],
            }],
        }],
    }] });
    assert_eq!(json, expected);
}

#[test]
fn what_is_written_can_be_read() {
    let export = export(&[], vec![span(called("http://b/", Outcome::GivenUp))]);
    let bytes = export.encode_to_vec();
    assert_eq!(Export::decode(&*bytes).expect("message"), export);
}
