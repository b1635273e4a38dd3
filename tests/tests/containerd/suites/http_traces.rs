//! Spans of HTTP components, and how they come to a collector.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use wisp_tests::collector::{Collector, Span};
use wisp_tests::http::{self, Response};
use wisp_tests::upstream::Upstream;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Running, Test};

const GUESTS: [&str; 2] = ["http-02", "http-03"];

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// What a client says of its trace.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Export nearly at once, and only at the end or when there is a batch.
const AT_ONCE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");
const LATE: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");

pub fn cases() -> Vec<Case> {
    super::cases(
        "http_traces",
        &[
            (
                "spans tell of each step, in the trace of the client and the next server",
                steps,
            ),
            (
                "an instance that is used again is in the trace of each request",
                again,
            ),
            (
                "requests that share an instance are each in their own trace",
                shared,
            ),
            ("what fails is an error of its spans", errors),
            ("spans of all threads are there", threads),
            (
                "a collector that is not granted is told of and not asked",
                denied,
            ),
            ("what waits is exported after SIGTERM", flushed),
            (
                "a collector that is not there, or is busy, harms nobody",
                unreachable,
            ),
            ("without an endpoint traces are left as they are", untouched),
        ],
    )
}

/// A server on the host's network whose environment is `variables`, its port and
/// that of its metrics.
fn serve<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    rules: &str,
    variables: &[(&str, &str)],
) -> Result<(Running<'t, 'n>, u16, u16)> {
    serve_from(test, guest, rules, variables, &[])
}

/// The same with `instances`: annotations that say how they are used again.
fn serve_from<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    rules: &str,
    variables: &[(&str, &str)],
    instances: &[(&str, &str)],
) -> Result<(Running<'t, 'n>, u16, u16)> {
    let image = test.image(guest)?;
    let (port, metrics) = (http::free_port()?, http::free_port()?);
    let mut run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
        .annotation("io.wisp.metrics.listen", &format!("127.0.0.1:{metrics}"))
        .annotation("io.wisp.net.outbound", rules);
    for (name, value) in variables {
        run = run.env(name, value);
    }
    for (key, value) in instances {
        run = run.annotation(key, value);
    }
    Ok((run.start()?, port, metrics))
}

fn stop(running: Running<'_, '_>) -> Result<String> {
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(ended.err())
}

/// A request with these fields beside its own.
fn get(port: u16, path: &str, fields: &[(&str, &str)]) -> Result<Response> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(wait::here(PATIENCE)))?;
    let more: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: service.example:81\r\nConnection: close\r\n{more}\r\n"
    )?;
    http::finish(stream)
}

fn find<'s>(spans: &'s [Span], name: &str, kind: i32) -> Result<&'s Span> {
    let found = |span: &&Span| span.name == name && span.kind == kind;
    spans
        .iter()
        .find(found)
        .with_context(|| format!("no span {name:?} of kind {kind}: {spans:#?}"))
}

fn has(span: &Span, attributes: &[(&str, &str)]) -> Result<()> {
    for (name, value) in attributes {
        ensure!(
            span.attribute(name) == *value,
            "{name} is not {value:?}: {span:#?}"
        );
    }
    Ok(())
}

fn steps(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (collector, upstream) = (Collector::start()?, Upstream::plain()?);
        let next = format!("http://127.0.0.1:{}", upstream.port);
        let place = collector.place();
        let variables = [
            (ENDPOINT, &*place),
            ("OTEL_SERVICE_NAME", guest),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test",
            ),
            AT_ONCE,
        ];
        let (running, port, _) = serve(test, guest, &format!("{place}, {next}"), &variables)?;
        let context = format!("00-{TRACE}-{PARENT}-01");
        let fields = [
            ("traceparent", &*context),
            ("tracestate", "vendor=x"),
            ("User-Agent", "test/1"),
        ];
        let path = format!("/outbound?url={next}/x&sig=secret");
        let response = get(port, &path, &fields)?;
        ensure!(response.status == 200, "{guest}: {response:?}");
        let spans = collector.until(|spans| spans.len() >= 4)?;
        ensure!(spans.len() == 4, "{guest}: {spans:#?}");

        let server = find(&spans, "GET", 2)?;
        ensure!(server.parent == PARENT && server.is_parent_remote);
        ensure!(server.state == "vendor=x" && !server.is_error);
        let url = format!("url={next}/x&sig=REDACTED");
        let listens = [
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("url.scheme", "http"),
            ("url.path", "/outbound"),
            ("url.query", &url),
            ("server.address", "service.example"),
            ("server.port", "81"),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "test/1"),
        ];
        has(server, &listens)?;
        for step in ["instantiate", "handle"] {
            let step = find(&spans, step, 1)?;
            ensure!(step.parent == server.number && !step.is_parent_remote);
            ensure!(server.begun <= step.begun && step.begun <= step.ended);
        }
        let client = find(&spans, "GET", 3)?;
        ensure!(client.parent == server.number, "{client:#?}");
        has(
            client,
            &[
                ("http.response.status_code", "200"),
                ("server.port", &upstream.port.to_string()),
            ],
        )?;
        ensure!(
            client
                .attribute("url.full")
                .starts_with(&format!("{next}/x"))
        );
        ensure!(upstream.field("traceparent") == [client.context()]);
        ensure!(upstream.field("tracestate") == ["vendor=x"]);
        for span in &spans {
            ensure!(span.trace == TRACE && span.ended >= span.begun, "{span:#?}");
            let service = span.resource.get("service.name").map(String::as_str);
            ensure!(service == Some(guest), "{span:#?}");
            let place = span.resource.get("deployment.environment.name");
            ensure!(place.is_some_and(|place| place == "test"), "{span:#?}");
        }

        // The guest is told of the server's span.
        let response = get(port, "/header?name=traceparent", &fields)?;
        let told = response.text();
        let spans = collector.until(|spans| spans.len() >= 7)?;
        let told_of = |span: &Span| span.kind == 2 && span.context() == told.trim();
        ensure!(spans.iter().any(told_of), "{guest}: {told} {spans:#?}");
        let response = get(port, "/header?name=tracestate", &fields)?;
        ensure!(response.text() == "vendor=x\n", "{response:?}");

        // Who does not want to be recorded is not, and neither are others then.
        let context = format!("00-{TRACE}-{PARENT}-00");
        let fields = [("traceparent", &*context)];
        let before = collector.until(|spans| spans.len() >= 10)?.len();
        let told = get(port, "/header?name=traceparent", &fields)?.text();
        ensure!(told.starts_with(&format!("00-{TRACE}-")), "{told}");
        ensure!(told.ends_with("-00\n") && !told.contains(PARENT), "{told}");
        stop(running)?;
        let after = collector.until(|_| true)?.len();
        ensure!(before == after, "{guest}: {before} spans, then {after}");
    }
    Ok(())
}

/// A server that may ask `upstream` and tells `collector` at once, its port, and
/// where the other one is.
fn serve_between<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    collector: &Collector,
    upstream: &Upstream,
    instances: &[(&str, &str)],
) -> Result<(Running<'t, 'n>, u16, String)> {
    let (place, next) = (
        collector.place(),
        format!("http://127.0.0.1:{}", upstream.port),
    );
    let (running, port, _) = serve_from(
        test,
        guest,
        &format!("{place}, {next}"),
        &[(ENDPOINT, &*place), AT_ONCE],
        instances,
    )?;
    Ok((running, port, next))
}

/// The trace of a client, by a number.
fn trace(number: u8) -> String {
    format!("{number:02}{}", &TRACE[2..])
}

fn of_trace<'s>(spans: &'s [Span], trace: &'s str) -> impl Iterator<Item = &'s Span> {
    spans.iter().filter(move |span| span.trace == trace)
}

fn again(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (collector, upstream) = (Collector::start()?, Upstream::plain()?);
        let (running, port, next) = serve_between(
            test,
            guest,
            &collector,
            &upstream,
            &[("io.wisp.http.reuse", "10")],
        )?;
        for number in [1, 2] {
            let context = format!("00-{}-{PARENT}-01", trace(number));
            let path = format!("/outbound?url={next}/{number}");
            let response = get(port, &path, &[("traceparent", &context)])?;
            ensure!(response.status == 200, "{guest}: {response:?}");
        }
        let spans = collector.until(|spans| spans.len() >= 7)?;
        for (number, steps) in [(1, &["handle", "instantiate"][..]), (2, &["handle"])] {
            let trace = trace(number);
            let own: Vec<Span> = of_trace(&spans, &trace).cloned().collect();
            let server = find(&own, "GET", 2)?;
            let client = find(&own, "GET", 3)?;
            ensure!(client.parent == server.number, "{guest}: {own:#?}");
            let asked = client.attribute("url.full");
            ensure!(asked == format!("{next}/{number}"), "{guest}: {own:#?}");
            for step in steps {
                find(&own, step, 1)?;
            }
            ensure!(own.len() == 2 + steps.len(), "{guest}: {own:#?}");
        }
        stop(running)?;
    }
    Ok(())
}

fn shared(test: &Test<'_>) -> Result<()> {
    const AT_ONCE_THERE: u8 = 4;
    let (collector, upstream) = (Collector::start()?, Upstream::plain()?);
    let (running, port, next) = serve_between(
        test,
        "http-03",
        &collector,
        &upstream,
        &[
            ("io.wisp.http.reuse", "100"),
            ("io.wisp.http.concurrency", "4"),
        ],
    )?;
    let ask = |path: &str| -> Result<Vec<String>> {
        let asked: Vec<_> = (1..=AT_ONCE_THERE)
            .map(|number| {
                let context = format!("00-{}-{PARENT}-01", trace(number));
                let path = path.to_owned();
                thread::spawn(move || get(port, &path, &[("traceparent", &context)]))
            })
            .collect();
        let texts = asked.into_iter().map(|answer| {
            let response = answer.join().ok().context("a client panicked")??;
            ensure!(response.status == 200, "{response:?}");
            Ok(response.text())
        });
        texts.collect()
    };
    let told = ask("/header?name=traceparent")?;
    for (number, text) in (1..=AT_ONCE_THERE).zip(told) {
        ensure!(
            text.starts_with(&format!("00-{}-", trace(number))),
            "{text}"
        );
    }
    ask(&format!("/outbound?url={next}/"))?;
    ensure!(upstream.field("traceparent").is_empty());
    // Two requests each, of which nobody knows what they asked for.
    let spans = collector.until(|spans| spans.len() >= 4 * usize::from(AT_ONCE_THERE))?;
    for number in 1..=AT_ONCE_THERE {
        let trace = trace(number);
        let own: Vec<Span> = of_trace(&spans, &trace).cloned().collect();
        let servers: BTreeSet<&str> = (own.iter().filter(|span| span.kind == 2))
            .map(|span| &*span.number)
            .collect();
        let handles: BTreeSet<&str> = (own.iter().filter(|span| span.name == "handle"))
            .map(|span| &*span.parent)
            .collect();
        ensure!(servers.len() == 2 && handles == servers, "{own:#?}");
        ensure!(own.len() == 4, "{own:#?}");
    }
    stop(running)?;
    Ok(())
}

fn errors(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let collector = Collector::start()?;
        let place = collector.place();
        let variables = [(ENDPOINT, &*place), AT_ONCE];
        let (running, port, _) = serve(test, guest, &place, &variables)?;
        ensure!(get(port, "/trap", &[])?.status == 500);
        let spans = collector.until(|spans| spans.len() >= 3)?;
        let server = find(&spans, "GET", 2)?;
        ensure!(server.is_error && server.parent.is_empty(), "{server:#?}");
        has(server, &[("error.type", "500")])?;
        let handle = find(&spans, "handle", 1)?;
        ensure!(handle.is_error, "{handle:#?}");
        has(handle, &[("error.type", "UnreachableCodeReached")])?;

        // A request that no rule grants does not get far.
        let response = get(port, "/outbound?url=http://127.0.0.1:9/", &[])?;
        ensure!(response.status == 502, "{response:?}");
        let spans = collector.until(|spans| spans.len() >= 7)?;
        let client = find(&spans, "GET", 3)?;
        ensure!(client.is_error, "{client:#?}");
        has(client, &[("error.type", "HTTP-request-denied")])?;
        stop(running)?;
    }
    Ok(())
}

fn threads(test: &Test<'_>) -> Result<()> {
    const CLIENTS: usize = 16;
    const EACH: usize = 25;
    let collector = Collector::start()?;
    let place = collector.place();
    let variables = [
        (ENDPOINT, &*place),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100"),
        LATE,
    ];
    let (running, port, metrics) = serve(test, "http-02", &place, &variables)?;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || -> Result<()> {
                for _ in 0..EACH {
                    let response = get(port, "/", &[])?;
                    ensure!(response.status == 200, "{response:?}");
                }
                Ok(())
            })
        })
        .collect();
    for client in clients {
        client.join().ok().context("a client panicked")??;
    }
    let spans = 3 * CLIENTS * EACH;
    let text = http::get(metrics, "/metrics")?.text();
    let dropped = "wisp_otlp_spans_dropped_total{reason=\"queue_full\"} 0";
    ensure!(text.lines().any(|line| line == dropped), "{text}");
    stop(running)?;
    let found = collector.until(|found| found.len() >= spans)?;
    let numbers: BTreeSet<_> = found.iter().map(|span| &span.number).collect();
    ensure!(numbers.len() == spans, "{} of {spans}", numbers.len());
    let traces: BTreeSet<_> = found.iter().map(|span| &span.trace).collect();
    ensure!(traces.len() == CLIENTS * EACH, "{} traces", traces.len());
    Ok(())
}

fn denied(test: &Test<'_>) -> Result<()> {
    let collector = Collector::start()?;
    let place = collector.place();
    let variables = [(ENDPOINT, &*place), AT_ONCE];
    let (running, port, metrics) = serve(test, "http-02", "http://127.0.0.1:9", &variables)?;
    let why = format!("io.wisp.net.outbound would: {place}");
    running.stderr.until(&why, PATIENCE)?;
    let told = get(port, "/header?name=traceparent", &[])?;
    ensure!(told.status == 200 && told.text().is_empty(), "{told:?}");
    let text = http::get(metrics, "/metrics")?.text();
    ensure!(!text.contains("otlp"), "{text}");
    let err = stop(running)?;
    ensure!(err.matches(&place).count() == 1, "{err}");
    ensure!(collector.requests() == 0, "it was asked");
    Ok(())
}

fn flushed(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let collector = Collector::start()?;
        let place = collector.place();
        let (running, port, _) = serve(test, guest, &place, &[(ENDPOINT, &place), LATE])?;
        ensure!(get(port, "/", &[])?.status == 200);
        // One that ends after the signal has its span as well.
        let slow = http::request(port, "GET", "/sleep?ms=1000", b"")?;
        ensure!(get(port, "/", &[])?.status == 200);
        ensure!(collector.requests() == 0, "{guest}: it is not time yet");
        running.kill(Signal::SIGTERM)?;
        ensure!(http::finish(slow)?.status == 200, "{guest}");
        let ended = running.finish()?;
        ensure!(ended.code == 0, "{guest}: {ended:?}");
        let spans = collector.until(|_| true)?;
        ensure!(spans.len() == 9, "{guest}: {spans:#?}");
    }
    Ok(())
}

fn unreachable(test: &Test<'_>) -> Result<()> {
    let place = format!("http://127.0.0.1:{}", http::free_port()?);
    let collector = Collector::start()?;
    collector.answer_with(503);
    for place in [place, collector.place()] {
        let variables = [
            (ENDPOINT, &*place),
            ("OTEL_BSP_EXPORT_TIMEOUT", "100"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
            AT_ONCE,
        ];
        let (running, port, metrics) = serve(test, "http-02", &place, &variables)?;
        for _ in 0..20 {
            ensure!(get(port, "/", &[])?.status == 200);
        }
        running.stderr.until("exporting spans to", PATIENCE)?;
        let text = http::get(metrics, "/metrics")?.text();
        let lost = "wisp_otlp_spans_dropped_total{reason=\"export_failed\"} ";
        let lost = text.lines().find_map(|line| line.strip_prefix(lost));
        ensure!(lost.is_some_and(|lost| lost != "0"), "{text}");
        let err = stop(running)?;
        ensure!(err.matches("exporting spans to").count() == 1, "{err}");
    }
    // It is told when it is back.
    let place = collector.place();
    let variables = [
        (ENDPOINT, &*place),
        ("OTEL_BSP_EXPORT_TIMEOUT", "100"),
        AT_ONCE,
    ];
    let (running, port, _) = serve(test, "http-03", &place, &variables)?;
    ensure!(get(port, "/", &[])?.status == 200);
    running.stderr.until("exporting spans to", PATIENCE)?;
    collector.answer_with(200);
    ensure!(get(port, "/", &[])?.status == 200);
    running.stderr.until("spans are exported to", PATIENCE)?;
    stop(running)?;
    Ok(())
}

fn untouched(test: &Test<'_>) -> Result<()> {
    let collector = Collector::start()?;
    let place = collector.place();
    let context = format!("00-{TRACE}-{PARENT}-01");
    let fields = [("traceparent", &*context), ("tracestate", "vendor=x")];
    for (variables, line) in [
        (&[AT_ONCE][..], ""),
        (&[(ENDPOINT, &*place), ("OTEL_SDK_DISABLED", "true")], ""),
        (&[(ENDPOINT, &*place), ("OTEL_TRACES_EXPORTER", "none")], ""),
        (
            &[(ENDPOINT, &*place), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            "wisp: OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is not supported",
        ),
    ] {
        let (running, port, _) = serve(test, "http-02", &place, variables)?;
        for (name, value) in fields {
            let response = get(port, &format!("/header?name={name}"), &fields)?;
            ensure!(response.text() == format!("{value}\n"), "{response:?}");
        }
        let err = stop(running)?;
        let expected = usize::from(!line.is_empty());
        ensure!(
            err.contains(line) && err.lines().count() == expected,
            "{err}"
        );
    }
    ensure!(collector.requests() == 0, "it was asked");
    Ok(())
}
