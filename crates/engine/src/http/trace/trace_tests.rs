use std::net::SocketAddr;
use std::time::Instant;

use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use wasmtime_wasi_http::Error;

use super::sampler::Root;
use super::span::{Outcome, What};
use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-01";

fn traces(root: Root) -> Arc<Traces> {
    let queue = Arc::new(Queue::new(100, 100));
    Arc::new(Traces {
        sampler: Sampler {
            root,
            by_parent: true,
        },
        place: queue.place(),
        queue,
    })
}

fn request(fields: &[(&'static str, &'static str)]) -> Request<()> {
    let mut request = Request::builder().uri("http://a/x");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("request")
}

fn receive(
    traces: &Arc<Traces>,
    request: &mut Request<()>,
) -> (Option<Box<super::Request>>, Arc<Scope>) {
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    let served = traces.receive(request, client, Instant::now());
    let scope = request.extensions_mut().remove().expect("scope");
    (served, scope)
}

fn field<'a, B>(request: &'a Request<B>, name: &str) -> &'a str {
    let value = request.headers().get(name);
    value.and_then(|value| value.to_str().ok()).unwrap_or("")
}

fn context<B>(request: &Request<B>) -> SpanContext {
    SpanContext::of(request.headers()).expect("context")
}

#[test]
fn a_guest_is_told_of_the_servers_span_in_the_same_trace() {
    let traces = traces(Root::Never);
    let mut request = request(&[("traceparent", PARENT), ("tracestate", "a=b")]);
    let before = context(&request);
    let (served, scope) = receive(&traces, &mut request);
    let told = context(&request);
    assert_eq!(told.trace, before.trace);
    assert_ne!(told.span, before.span);
    assert!(told.sampled);
    assert_eq!(told, scope.context);
    assert_eq!(field(&request, "tracestate"), "a=b");
    served.expect("the parent is sampled").end(Some(200), false);
    let span = traces.queue.take().pop().expect("span");
    let parent = span.parent.expect("parent");
    assert_eq!((parent.span, parent.is_remote), (before.span, true));
    assert_eq!(span.context, told);
    assert_eq!(span.state.as_deref(), Some("a=b"));
    assert!(span.begun <= span.ended);
}

#[test]
fn without_a_valid_parent_a_trace_begins() {
    for fields in [
        &[][..],
        &[("tracestate", "a=b")],
        &[("traceparent", "nonsense"), ("tracestate", "a=b")],
        &[("traceparent", PARENT), ("traceparent", OTHER)],
    ] {
        let traces = traces(Root::Always);
        let mut request = request(fields);
        let (served, _) = receive(&traces, &mut request);
        assert_eq!(request.headers().get_all("traceparent").iter().count(), 1);
        assert_eq!(field(&request, "tracestate"), "", "{fields:?}");
        served.expect("sampled").end(None, false);
        let span = traces.queue.take().pop().expect("span");
        assert!(span.parent.is_none());
        assert_eq!(span.context, context(&request));
    }
}

#[test]
fn what_is_not_sampled_is_passed_on_and_not_recorded() {
    let traces = traces(Root::Never);
    let mut request = request(&[]);
    let (served, scope) = receive(&traces, &mut request);
    assert!(served.is_none());
    assert!(!context(&request).sampled);
    Step::begin(Some(&scope), "handle").end(&Ok(()));
    let mut calls = Calls::default();
    calls.enter(scope);
    let mut outgoing = self::request(&[]);
    assert!(calls.begin(&mut outgoing).is_none());
    assert_eq!(context(&outgoing).trace, context(&request).trace);
    assert!(!context(&outgoing).sampled);
    assert!(traces.queue.take().is_empty());
}

#[test]
fn steps_are_below_the_request_and_have_its_problems() {
    let traces = traces(Root::Always);
    let (_served, scope) = receive(&traces, &mut request(&[]));
    Step::begin(None, "nothing").end(&Ok(()));
    Step::begin(Some(&scope), "well").end(&Ok(()));
    let trap = wasmtime::Trap::UnreachableCodeReached;
    Step::begin(Some(&scope), "trapped").end::<()>(&Err(trap.into()));
    Step::begin(Some(&scope), "failed").end::<()>(&Err(wasmtime::Error::msg("why").context("x")));
    drop(Step::begin(Some(&scope), "cut off"));
    let found: Vec<_> = traces
        .queue
        .take()
        .iter()
        .map(|span| {
            assert_eq!(span.context.trace, scope.context.trace);
            let parent = span.parent.expect("parent");
            assert_eq!((parent.span, parent.is_remote), (scope.context.span, false));
            let What::Step(step) = &span.what else {
                panic!("no step");
            };
            let problem = step.problem.as_ref();
            let of = |problem: &span::Problem| format!("{}: {}", problem.kind, problem.text);
            (step.name, problem.map_or_else(String::new, of))
        })
        .collect();
    let trapped = found[1].1.clone();
    assert!(trapped.starts_with("UnreachableCodeReached: "), "{trapped}");
    let expected = [
        ("well", String::new()),
        ("trapped", trapped),
        ("failed", "guest_error: why".to_owned()),
        ("cut off", "timeout: ".to_owned()),
    ];
    assert_eq!(found, expected);
}

/// What an instance has that answers requests with these fields.
fn calls(
    traces: &Arc<Traces>,
    requests: &[&[(&'static str, &'static str)]],
) -> (Calls, Vec<Arc<Scope>>) {
    let mut calls = Calls::default();
    let scopes: Vec<_> = requests
        .iter()
        .map(|fields| receive(traces, &mut request(fields)).1)
        .collect();
    for scope in &scopes {
        calls.enter(scope.clone());
    }
    (calls, scopes)
}

#[test]
fn a_call_tells_the_next_server_of_its_span() {
    let traces = traces(Root::Always);
    let (calls, scopes) = calls(
        &traces,
        &[&[("traceparent", PARENT), ("tracestate", "a=b")]],
    );
    let mut outgoing = request(&[]);
    drop(calls.begin(&mut outgoing).expect("recorded"));
    assert_eq!(field(&outgoing, "tracestate"), "a=b");
    let span = traces.queue.take().pop().expect("span");
    assert_eq!(span.context, context(&outgoing));
    assert_eq!(span.context.trace, scopes[0].context.trace);
    assert_eq!(span.parent.expect("parent").span, scopes[0].context.span);
}

#[test]
fn a_guests_own_span_is_left_as_it_is() {
    let traces = traces(Root::Always);
    let (calls, scopes) = calls(
        &traces,
        &[&[("traceparent", PARENT), ("tracestate", "a=b")]],
    );
    let mut outgoing = request(&[("traceparent", OTHER)]);
    drop(calls.begin(&mut outgoing).expect("recorded"));
    assert_eq!(field(&outgoing, "traceparent"), OTHER);
    assert_eq!(field(&outgoing, "tracestate"), "");
    let span = traces.queue.take().pop().expect("span");
    let theirs = context(&outgoing);
    assert_eq!(span.context.trace, theirs.trace);
    assert_eq!(span.parent.expect("parent").span, theirs.span);
    // It is of another trace.
    assert_eq!(span.state, None);
    // What is malformed is the guest's business, too.
    let mut outgoing = request(&[("traceparent", "mine")]);
    drop(calls.begin(&mut outgoing).expect("recorded"));
    assert_eq!(field(&outgoing, "traceparent"), "mine");
    let span = traces.queue.take().pop().expect("span");
    assert_eq!(span.parent.expect("parent").span, scopes[0].context.span);
}

#[test]
fn of_several_requests_only_the_guest_knows_which_it_calls_for() {
    let traces = traces(Root::Always);
    let mut calls = Calls::default();
    let scopes: Vec<_> = (0..2)
        .map(|_| receive(&traces, &mut request(&[])).1)
        .collect();
    for scope in &scopes {
        calls.enter_among(scope.clone());
    }
    let none = |calls: &Calls| {
        let mut outgoing = request(&[]);
        assert!(calls.begin(&mut outgoing).is_none());
        assert!(outgoing.headers().is_empty());
    };
    none(&calls);
    let told = calls.begin(&mut request(&[("traceparent", OTHER)]));
    assert!(told.is_some());
    // What it does for the first may go on.
    calls.leave(&scopes[0]);
    none(&calls);
    calls.leave(&scopes[1]);
    none(&calls);
}

fn outcome(traces: &Traces) -> String {
    let span = traces.queue.take().pop().expect("span");
    let What::Called(called) = &span.what else {
        panic!("no call");
    };
    match called.outcome {
        Outcome::Response(status, version) => format!("{status} {version:?}"),
        Outcome::Failed(name) => name.to_owned(),
        Outcome::GivenUp => "given up".to_owned(),
    }
}

#[tokio::test]
async fn a_call_ends_with_its_response() {
    let traces = traces(Root::Always);
    let (calls, _) = calls(&traces, &[&[]]);
    let begin = || calls.begin(&mut request(&[])).expect("recorded");
    let response = || {
        let body = Empty::new().map_err(|never| match never {});
        let response = Response::builder().status(204).version(Version::HTTP_2);
        response.body(body.boxed_unsync()).expect("response")
    };
    let (read, ()) = begin().answered(Ok((response(), ()))).expect("response");
    assert!(traces.queue.take().is_empty(), "its body has not been read");
    read.into_body().collect().await.expect("body");
    assert_eq!(outcome(&traces), "204 HTTP/2.0");

    let left = begin().answered(Ok((response(), ()))).expect("response");
    drop(left);
    assert_eq!(outcome(&traces), "204 HTTP/2.0");

    let failed = begin().answered::<()>(Err(Error::ConnectionRefused));
    assert!(failed.is_err());
    assert_eq!(outcome(&traces), "connection-refused");

    drop(begin());
    assert_eq!(outcome(&traces), "given up");
}

#[test]
fn where_nothing_is_exported_any_more_requests_are_left_alone() {
    let traces = traces(Root::Always);
    traces.queue.close();
    let mut request = request(&[("traceparent", PARENT)]);
    let client = SocketAddr::from(([127, 0, 0, 1], 1));
    assert!(
        traces
            .receive(&mut request, client, Instant::now())
            .is_none()
    );
    assert_eq!(field(&request, "traceparent"), PARENT);
    assert!(request.extensions().is_empty());
}
