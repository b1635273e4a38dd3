//! Instances that work on several requests at once: how many they are, and what
//! one request can do to the others.

use super::Case;
use super::http_threads::{metrics_have, serve};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::TcpStream;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Running, Test, http};

pub fn cases() -> Vec<Case> {
    super::cases(
        "http-together",
        &[
            (
                "an instance works on as many requests as is asked for",
                together,
            ),
            ("what an instance of 0.2 cannot do is told", alone),
            ("a trap ends the requests of its instance only", trap),
            ("a guest that computes holds nobody up", computes),
            (
                "an instance with a request that took too long gets no others",
                late,
            ),
            ("SIGTERM waits for all that an instance works on", drained),
        ],
    )
}

/// One processor, so that all requests come to one thread's instances.
fn one_thread() -> Option<Value> {
    Some(json!({ "quota": 100_000, "period": 100_000 }))
}

const FOUR_AT_ONCE: [(&str, &str); 2] = [
    ("io.wisp.http.reuse", "100"),
    ("io.wisp.http.concurrency", "4"),
];

fn begin(port: u16, path: &str, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| http::request(port, "GET", path, b""))
        .collect()
}

fn all_are(open: Vec<TcpStream>, status: u16) -> Result<()> {
    for stream in open {
        let response = http::finish(stream)?;
        ensure!(response.status == status, "{response:?}");
    }
    Ok(())
}

/// Waits until so many instances were made, used again and failed.
fn counts(metrics: u16, made: u32, reused: u32, failed: u32) -> Result<()> {
    metrics_have(
        metrics,
        &[
            &format!("wisp_http_instantiate_duration_seconds_count {made}"),
            &format!("wisp_http_instances_reused_total {reused}"),
            &format!("wisp_http_instances_failed_total {failed}"),
        ],
    )
}

fn stop(running: Running<'_, '_>) -> Result<()> {
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

fn together(test: &Test<'_>) -> Result<()> {
    let bounds = [
        ("io.wisp.http.reuse", "6"),
        ("io.wisp.http.concurrency", "4"),
    ];
    let (running, port, metrics) = serve(test, "http-03", &bounds, one_thread())?;
    let four = begin(port, "/sleep?ms=1500", 4)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 4"])?;
    counts(metrics, 1, 3, 0)?;
    // There is no more room in the first.
    let fifth = begin(port, "/sleep?ms=1500", 1)?;
    counts(metrics, 2, 3, 0)?;
    all_are(four, 200)?;
    all_are(fifth, 200)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 0"])?;
    // The newest is asked first, up to its sixth; the other has two left.
    for _ in 0..7 {
        ensure!(http::get(port, "/")?.text() == "hello from wasi:http 0.3\n");
    }
    counts(metrics, 2, 10, 0)?;
    ensure!(http::get(port, "/")?.status == 200);
    counts(metrics, 3, 10, 0)?;
    stop(running)
}

fn alone(test: &Test<'_>) -> Result<()> {
    let (running, port, metrics) = serve(test, "http-02", &FOUR_AT_ONCE, one_thread())?;
    running
        .stderr
        .until("io.wisp.http.concurrency has no effect", PATIENCE)?;
    let open = begin(port, "/sleep?ms=500", 4)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 4"])?;
    counts(metrics, 4, 0, 0)?;
    all_are(open, 200)?;
    stop(running)
}

fn trap(test: &Test<'_>) -> Result<()> {
    let (running, port, metrics) = serve(test, "http-03", &FOUR_AT_ONCE, one_thread())?;
    let three = begin(port, "/sleep?ms=60000", 3)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 3"])?;
    counts(metrics, 1, 2, 0)?;
    // The fourth is in the same instance, the fifth is not.
    let trapping = begin(port, "/trap", 1)?;
    all_are(trapping, 500)?;
    all_are(three, 500)?;
    counts(metrics, 1, 3, 1)?;
    running.stderr.until("trap_here", PATIENCE)?;
    ensure!(http::get(port, "/")?.status == 200);
    counts(metrics, 2, 3, 1)?;
    stop(running)
}

fn computes(test: &Test<'_>) -> Result<()> {
    let mut bounds = FOUR_AT_ONCE.to_vec();
    bounds.push(("io.wisp.http.request-timeout", "10s"));
    let (running, port, metrics) = serve(test, "http-03", &bounds, one_thread())?;
    ensure!(http::get(port, "/")?.status == 200);
    counts(metrics, 1, 0, 0)?;
    let spinning = begin(port, "/spin", 1)?;
    counts(metrics, 1, 1, 0)?;
    // These could have been given to the same instance.
    for _ in 0..8 {
        ensure!(http::get(port, "/")?.status == 200);
    }
    metrics_have(metrics, &["wisp_http_requests_in_flight 1"])?;
    all_are(spinning, 504)?;
    // One of them was first given to the instance that computes, or none.
    counts(metrics, 2, 8, 1)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 0"])?;
    stop(running)
}

fn late(test: &Test<'_>) -> Result<()> {
    let mut bounds = FOUR_AT_ONCE.to_vec();
    bounds.push(("io.wisp.http.request-timeout", "2s"));
    let (running, port, metrics) = serve(test, "http-03", &bounds, one_thread())?;
    let late = begin(port, "/sleep?ms=600000", 1)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 1"])?;
    counts(metrics, 1, 0, 0)?;
    // Its neighbour begins later, so that it has time left when this one has none;
    // it goes on to its end, although the instance gets no others.
    std::thread::sleep(std::time::Duration::from_millis(1000));
    let neighbour = begin(port, "/sleep?ms=1500", 1)?;
    counts(metrics, 1, 1, 0)?;
    all_are(late, 504)?;
    let after = begin(port, "/", 1)?;
    counts(metrics, 2, 1, 0)?;
    all_are(after, 200)?;
    all_are(neighbour, 200)?;
    // The first has ended and its memory is gone; the second waits for more.
    let ended = wait::until(PATIENCE, || {
        let text = http::get(metrics, "/metrics").ok()?.text();
        let of = |line: &str| line.strip_prefix("wisp_guest_memory_bytes ")?.parse().ok();
        let bytes: u64 = text.lines().find_map(of)?;
        (bytes > 0 && bytes < 3 << 20).then_some(())
    });
    ended.context("the first instance is still there")?;
    stop(running)
}

fn drained(test: &Test<'_>) -> Result<()> {
    let (running, port, metrics) = serve(test, "http-03", &FOUR_AT_ONCE, None)?;
    let open = begin(port, "/sleep?ms=2000", 12)?;
    metrics_have(metrics, &["wisp_http_requests_in_flight 12"])?;
    running.kill(Signal::SIGTERM)?;
    for stream in open {
        let response = http::finish(stream).context("lost")?;
        ensure!(response.text() == "awake\n", "{response:?}");
    }
    let ended = running.finish()?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}
