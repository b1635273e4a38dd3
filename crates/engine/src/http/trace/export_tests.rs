use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpListener;
use wisp_capability::{Policy, annotation, grant};

use super::super::message::{Export, Exported, PartialSuccess};
use super::super::variables::tests::environment;
use super::*;
use crate::network::Network;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a collector answers: a status, a field with its value, and a body.
type Line = (u16, Option<(&'static str, &'static str)>, Vec<u8>);

/// A collector that answers with these lines one after the other, and then well.
struct Collector {
    address: SocketAddr,
    /// The number of spans of each request, and its head.
    seen: Arc<Mutex<Vec<(usize, http::request::Parts)>>>,
}

impl Collector {
    async fn start(lines: Vec<Line>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::new(Mutex::new(lines.into_iter()));
        let (all, own) = (seen.clone(), lines);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                let (seen, lines) = (all.clone(), own.clone());
                tokio::spawn(async move {
                    let answer = service_fn(|request: Request<Incoming>| {
                        let (seen, lines) = (seen.clone(), lines.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            let bytes = body.collect().await.expect("body").to_bytes();
                            let count = spans(&bytes);
                            seen.lock().expect("seen").push((count, head));
                            let line = lines.lock().expect("lines").next();
                            let (status, field, body) = line.unwrap_or((200, None, vec![]));
                            let mut response = Response::builder().status(status);
                            if let Some((name, value)) = field {
                                response = response.header(name, value);
                            }
                            let response = response.body(Full::new(Bytes::from(body)));
                            Ok::<_, Infallible>(response.expect("response"))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Self { address, seen }
    }

    fn batches(&self) -> Vec<usize> {
        let seen = self.seen.lock().expect("seen");
        seen.iter().map(|(count, _)| *count).collect()
    }
}

/// How many spans there are in a message; of one that is not, none.
fn spans(bytes: &[u8]) -> usize {
    let Ok(export) = Export::decode(bytes) else {
        return 0;
    };
    let scopes = export
        .resource_spans
        .iter()
        .flat_map(|one| &one.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

/// Spans on their way to `address`, as `variables` and `rules` say.
fn exporting(
    address: SocketAddr,
    rules: &str,
    variables: &[(&str, &str)],
) -> (Arc<Traces>, Result<Exporter, String>) {
    let place = format!("http://{address}");
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*place)];
    let all: Vec<_> = endpoint.iter().chain(variables).copied().collect();
    let env = environment(&all);
    let settings = Settings::read(&env, "x", &|line| panic!("{line}")).expect("settings");
    let grant = grant(&wisp_capability::Request {
        args: &["guest".to_owned()],
        env: &[],
        cwd: "/",
        annotations: &BTreeMap::from([(annotation::NET_OUTBOUND.to_owned(), rules.to_owned())]),
        mounts: &[],
        root_readonly: false,
        host_network: true,
        memory_limit: None,
        namespace: "",
        policy: &Policy::default(),
    })
    .expect("grant");
    let client = Client::new(&grant, &[], Arc::new(Network::new(&grant)));
    let traces = Traces::new(&settings);
    let exporter = Exporter::start(settings, &traces, Arc::new(client));
    (traces, exporter)
}

fn granted(collector: &Collector, variables: &[(&str, &str)]) -> (Arc<Traces>, Exporter) {
    let rules = format!("http://{}", collector.address);
    let (traces, exporter) = exporting(collector.address, &rules, variables);
    (traces, exporter.expect("granted"))
}

/// Answers so many requests.
fn serve(traces: &Arc<Traces>, requests: usize) {
    for _ in 0..requests {
        let mut request = Request::new(());
        let client = ([127, 0, 0, 1], 1).into();
        let served = traces.receive(&mut request, client, std::time::Instant::now());
        served.expect("sampled").end(Some(200), false);
    }
}

fn counts(traces: &Traces) -> (u64, u64) {
    let counts = traces.counts();
    (counts.exported.get(), counts.failed.get())
}

async fn until(done: impl Fn() -> bool) {
    let waits = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waits).await.expect("it does not come");
}

#[tokio::test]
async fn a_batch_leaves_when_it_is_full_and_the_rest_at_the_end() {
    let collector = Collector::start(vec![]).await;
    let variables = [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret"),
    ];
    let (traces, exporter) = granted(&collector, &variables);
    serve(&traces, 5);
    until(|| collector.batches() == [3]).await;
    serve(&traces.beside(), 3);
    exporter.finish(Instant::now() + PATIENCE).await;
    assert_eq!(collector.batches(), [3, 3, 2]);
    assert_eq!(counts(&traces), (8, 0));
    let (_, head) = &collector.seen.lock().expect("seen")[0];
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri, "/v1/traces");
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    assert_eq!(head.headers["x-key"], "secret");
}

#[tokio::test]
async fn what_waits_leaves_in_time() {
    let collector = Collector::start(vec![]).await;
    let (traces, _exporter) = granted(&collector, &[("OTEL_BSP_SCHEDULE_DELAY", "20")]);
    serve(&traces, 1);
    until(|| collector.batches() == [1]).await;
    serve(&traces, 2);
    until(|| collector.batches() == [1, 2]).await;
}

#[tokio::test]
async fn a_server_that_ends_does_not_wait_for_the_time() {
    let collector = Collector::start(vec![]).await;
    let (traces, exporter) = granted(&collector, &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    serve(&traces, 1);
    exporter.hurry();
    until(|| collector.batches() == [1]).await;
}

#[tokio::test]
async fn it_is_tried_again_when_the_collector_says_so() {
    let soon = Some(("retry-after", "0"));
    let lines = [429, 502, 503, 504].map(|status| (status, soon, vec![]));
    let collector = Collector::start(lines.into()).await;
    let (traces, _exporter) = granted(&collector, &[("OTEL_BSP_SCHEDULE_DELAY", "1")]);
    serve(&traces, 1);
    until(|| counts(&traces) == (1, 0)).await;
    assert_eq!(collector.batches(), [1; 5]);
}

#[tokio::test]
async fn what_is_refused_is_lost_and_what_follows_is_not() {
    let late = Some(("retry-after", "3600"));
    let lines = vec![(400, None, vec![]), (503, late, vec![])];
    let collector = Collector::start(lines).await;
    let (traces, exporter) = granted(&collector, &[("OTEL_BSP_SCHEDULE_DELAY", "1")]);
    serve(&traces, 1);
    until(|| counts(&traces) == (0, 1)).await;
    // One that wants to be asked later than anybody waits.
    serve(&traces, 1);
    until(|| counts(&traces) == (0, 2)).await;
    serve(&traces, 1);
    until(|| counts(&traces) == (1, 2)).await;
    exporter.finish(Instant::now() + PATIENCE).await;
    assert_eq!(collector.batches(), [1; 3]);
}

#[tokio::test]
async fn what_the_collector_does_not_want_is_counted() {
    let partial = Exported {
        partial_success: Some(PartialSuccess {
            rejected_spans: 2,
            error_message: "too old".to_owned(),
        }),
    };
    let collector = Collector::start(vec![(200, None, partial.encode_to_vec())]).await;
    let (traces, exporter) = granted(&collector, &[]);
    serve(&traces, 3);
    exporter.finish(Instant::now() + PATIENCE).await;
    assert_eq!(counts(&traces), (1, 2));
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_not_waited_for_at_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let rules = format!("http://{address}");
    let (traces, exporter) = exporting(address, &rules, &[("OTEL_BSP_MAX_QUEUE_SIZE", "2")]);
    serve(&traces, 5);
    assert_eq!(traces.counts().overflowed.get(), 3);
    exporter
        .expect("granted")
        .finish(Instant::now() + PATIENCE)
        .await;
    assert_eq!(counts(&traces), (0, 2));
}

#[tokio::test]
async fn a_try_at_the_end_cuts_a_wait_short() {
    let collector = Collector::start(vec![(503, Some(("retry-after", "20")), vec![])]).await;
    let (traces, exporter) = granted(&collector, &[("OTEL_BSP_SCHEDULE_DELAY", "1")]);
    serve(&traces, 1);
    until(|| collector.batches() == [1]).await;
    serve(&traces, 1);
    exporter.finish(Instant::now() + PATIENCE).await;
    assert_eq!(collector.batches(), [1; 3]);
    assert_eq!(counts(&traces), (2, 0));
}

#[tokio::test]
async fn an_endpoint_that_is_not_granted_is_told_with_what_would_grant_it() {
    let address = ([127, 0, 0, 1], 4318).into();
    let (_, exporter) = exporting(address, "http://127.0.0.1:4317", &[]);
    let problem = exporter.err().expect("refused");
    assert!(problem.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{problem}");
    let rule = "io.wisp.net.outbound would: http://127.0.0.1:4318";
    assert!(problem.contains(rule), "{problem}");
}

#[tokio::test]
async fn compressed_spans_say_so() {
    let collector = Collector::start(vec![]).await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ];
    let (traces, exporter) = granted(&collector, &variables);
    serve(&traces, 1);
    exporter.finish(Instant::now() + PATIENCE).await;
    assert_eq!(counts(&traces), (1, 0));
    let (_, head) = &collector.seen.lock().expect("seen")[0];
    assert_eq!(head.headers["content-encoding"], "gzip");
    assert_eq!(head.headers["content-type"], "application/json");
}
