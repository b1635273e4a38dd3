//! Servers with several threads: as many as there are processors, where there
//! are connections for them, and nothing lost among them.
//!
//! `WISP_STORM=100000/256` is how many requests and from how many clients at
//! once, and `WISP_CHURN_SEED` repeats a run. `make storm` is the long form.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use wisp_tests::http;
use wisp_tests::random::Random;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Running, Test};

const GUESTS: [&str; 2] = ["http-02", "http-03"];

pub fn cases() -> Vec<Case> {
    super::cases(
        "http_threads",
        &[
            (
                "there are as many threads as processors, for connections that need them",
                threads,
            ),
            (
                "a limit of one processor keeps one thread, until it is raised",
                limited,
            ),
            (
                "requests on all threads are finished after SIGTERM",
                drained,
            ),
            (
                "clients that leave in the midst of it harm nobody and leave nothing",
                storm,
            ),
        ],
    )
}

/// A server on the host's network, its port and that of its metrics.
pub fn serve<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    annotations: &[(&str, &str)],
    limits: Option<serde_json::Value>,
) -> Result<(Running<'t, 'n>, u16, u16)> {
    let image = test.image(guest)?;
    let (port, metrics) = (http::free_port()?, http::free_port()?);
    let (listen, scrape) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{metrics}"));
    let own = [
        ("io.wisp.http.listen", listen.as_str()),
        ("io.wisp.metrics.listen", scrape.as_str()),
    ];
    let id = own
        .iter()
        .chain(annotations)
        .fold(test.run(&image).net_host(), |run, (key, value)| {
            run.annotation(key, value)
        })
        .create_with(|spec| {
            if let Some(cpu) = limits {
                spec["linux"]["resources"]["cpu"] = cpu;
            }
        })?;
    Ok((Running::start(test, &id)?, port, metrics))
}

/// How many processors this node lets anybody have.
fn processors() -> Result<usize> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .count())
}

/// Threads that serve, beside the first.
fn others(running: &Running<'_, '_>) -> Result<usize> {
    let mut count = 0;
    for task in fs::read_dir(format!("/proc/{}/task", running.pid))? {
        let name = fs::read_to_string(task?.path().join("comm"))?;
        count += usize::from(name.trim() == "wisp-http");
    }
    Ok(count)
}

/// A connection on which one request has been answered.
fn connect(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(wait::here(PATIENCE)))?;
    stream.write_all(b"GET /no-such-path HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    // The end of the body, or of the chunk that it is.
    while !String::from_utf8_lossy(&answer).contains("nothing here\n") {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    Ok(stream)
}

fn threads(test: &Test<'_>) -> Result<()> {
    let most = processors()? - 1;
    for guest in GUESTS {
        let (running, port, _) = serve(test, guest, &[], None)?;
        for _ in 0..5 {
            drop(connect(port)?);
        }
        ensure!(http::get(port, "/")?.status == 200, "{guest}");
        // Enough for each to have more than it keeps to itself.
        let open = (0..4 * (most + 1))
            .map(|_| connect(port))
            .collect::<Result<Vec<_>>>()?;
        let count = others(&running)?;
        ensure!(
            count == most,
            "{guest}: {count} threads beside the first, not {most}"
        );
        drop(open);
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.code == 0, "{ended:?}");
    }
    Ok(())
}

fn limited(test: &Test<'_>) -> Result<()> {
    let limit = json!({ "quota": 100_000, "period": 100_000 });
    let (running, port, _) = serve(test, "http-02", &[], Some(limit))?;
    let open = (0..16).map(|_| connect(port)).collect::<Result<Vec<_>>>()?;
    let count = others(&running)?;
    ensure!(count == 0, "{count} threads for one processor");
    let limit = json!({ "cpu": { "quota": 200_000, "period": 100_000 } });
    test.api()?.update(&running.id, &limit)?;
    if processors()? > 1 {
        let mut more = Vec::new();
        let found = wait::until(PATIENCE, || {
            more.push(connect(port).ok()?);
            (others(&running).ok()? == 1).then_some(())
        });
        found.context("no second thread for a second processor")?;
    }
    drop(open);
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

/// Waits until the metrics have all these lines.
pub fn metrics_have(port: u16, lines: &[&str]) -> Result<()> {
    let mut last = String::new();
    let found = wait::until(PATIENCE, || {
        last = http::get(port, "/metrics").ok()?.text();
        let has = |line: &&str| last.lines().any(|found| found == *line);
        lines.iter().all(has).then_some(())
    });
    found.with_context(|| format!("{lines:?} are not in\n{last}"))
}

fn drained(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port, metrics) = serve(test, guest, &[], None)?;
        let open = (0..48)
            .map(|_| http::request(port, "GET", "/sleep?ms=3000", b""))
            .collect::<Result<Vec<_>>>()?;
        metrics_have(metrics, &["wisp_http_requests_in_flight 48"])?;
        running.kill(Signal::SIGTERM)?;
        for stream in open {
            let response = http::finish(stream).with_context(|| format!("{guest}: lost"))?;
            ensure!(
                response.status == 200 && response.text() == "awake\n",
                "{guest}: {response:?}"
            );
        }
        let ended = running.finish()?;
        ensure!(ended.code == 0, "{guest}: {ended:?}");
    }
    Ok(())
}

/// How many requests, and how many clients at once.
fn size() -> Result<(usize, usize)> {
    let Ok(text) = std::env::var("WISP_STORM") else {
        return Ok((2000, 32));
    };
    let (all, at_once) = text.split_once('/').context("WISP_STORM=ALL/AT-ONCE")?;
    Ok((all.parse()?, at_once.parse()?))
}

/// One client's request, which it may leave alone at any point. Says whether it
/// saw it through.
fn visit(port: u16, random: &mut Random) -> Result<bool> {
    let body = vec![b'x'; 1 << random.below(17)];
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    match random.below(8) {
        // In the middle of the head.
        0 => {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            let (some, _) = head.split_at(usize::try_from(random.below(head.len() as u64))?);
            stream.write_all(some.as_bytes())?;
        }
        // In the middle of the body.
        1 => {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(head.as_bytes())?;
            stream.write_all(body.split_at(body.len() / 2).0)?;
            stream.shutdown(Shutdown::Both)?;
        }
        // Before the answer has been read.
        2 => drop(http::request(port, "POST", "/echo", &body)?),
        3 => drop(http::request(port, "GET", "/stream?n=1000", b"")?),
        _ => {
            let response = http::post(port, "/echo", &body)?;
            ensure!(
                response.status == 200 && response.body == body,
                "{} and {} bytes of {}",
                response.status,
                response.body.len(),
                body.len()
            );
            return Ok(true);
        }
    }
    Ok(false)
}

fn storm(test: &Test<'_>) -> Result<()> {
    let (all, at_once) = size()?;
    let random = Random::new(Random::seed());
    let together = [
        ("io.wisp.http.reuse", "100"),
        ("io.wisp.http.concurrency", "8"),
    ];
    for (guest, annotations) in [
        ("http-02", &[][..]),
        ("http-02", &together[..1]),
        ("http-03", &[]),
        ("http-03", &together),
    ] {
        let (running, port, metrics) = serve(test, guest, annotations, None)?;
        let clients: Vec<_> = (0..at_once)
            .map(|number| {
                let mut random = random.of(number);
                thread::spawn(move || -> Result<usize> {
                    let mut seen = 0;
                    for _ in 0..all / at_once {
                        seen += usize::from(visit(port, &mut random)?);
                    }
                    Ok(seen)
                })
            })
            .collect();
        let mut seen = 0;
        for client in clients {
            let result = client.join().ok().context("a client panicked")?;
            seen += result.with_context(|| format!("{guest}: {random:?}"))?;
        }
        ensure!(seen > 0, "{guest}: nobody stayed");
        // What nobody waits for ends by itself.
        metrics_have(
            metrics,
            &[
                "wisp_http_requests_in_flight 0",
                "wisp_http_requests_queued 0",
                "wisp_http_connections 0",
            ],
        )?;
        // Where instances are used again, some wait for that.
        if annotations.is_empty() {
            metrics_have(metrics, &["wisp_guest_memory_bytes 0"])?;
        }
        ensure!(
            http::get(port, "/")?.status == 200,
            "{guest}: it serves no more"
        );
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.code == 0, "{guest}: {}", ended.code);
    }
    Ok(())
}
