//! How the server of HTTP components treats its clients: limits, times, and
//! what it makes of what comes over the wire.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use wisp_tests::http;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Running, Test};

const GUESTS: [&str; 2] = ["http-02", "http-03"];

pub fn cases() -> Vec<Case> {
    super::cases(
        "http-server",
        &[
            ("each malformed request gets one clear response", malformed),
            (
                "requests in a row and in pieces are answered in order",
                rows,
            ),
            ("a body is asked for before it is sent", expects),
            ("HTTP/2 is spoken on the same port", http2),
            ("a body that is too large is refused", large_bodies),
            ("a guest that does not answer in time is ended", late),
            ("requests beyond the queue are told to come again", queue),
            ("connections beyond the limit are told so", connections),
            ("slow and idle clients are disconnected", slow),
            ("probes are answered by the host", probes),
            ("instances are used again as often as is asked for", reuse),
            ("requests are logged as is asked for", logs),
            ("the grace period ends, and a second signal ends it", grace),
            ("what annotations cannot mean is refused", annotations),
        ],
    )
}

fn serve<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    annotations: &[(&str, &str)],
) -> Result<(Running<'t, 'n>, u16)> {
    let image = test.image(guest)?;
    let port = http::free_port()?;
    let mut run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"));
    for (key, value) in annotations {
        run = run.annotation(key, value);
    }
    Ok((run.start()?, port))
}

fn stop(running: Running<'_, '_>) -> Result<()> {
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

fn open(port: u16, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(wait::here(PATIENCE)))?;
    stream.write_all(bytes)?;
    Ok(stream)
}

/// All that comes until the server closes the connection.
fn rest(mut stream: TcpStream) -> Result<String> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        // It closed with something unread, which is its right.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.context("the connection stays open")?),
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ")
        .map(|(at, found)| &text[at + found.len()..][..3])
        .collect()
}

fn malformed(test: &Test<'_>) -> Result<()> {
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let cases: &[(&str, &str)] = &[
        ("NONSENSE\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", "400"),
        // Two lengths, and a coding that hides the length: what smuggles.
        (
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "400",
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "400",
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
            "400",
        ),
        (
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
            "413",
        ),
        ("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", "501"),
        (&huge, "431"),
        // What is not spoken is not upgraded to.
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
            "200",
        ),
    ];
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[])?;
        for (request, status) in cases {
            let short = &request[..request.len().min(80)];
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(wait::here(PATIENCE)))?;
            // It may answer before it has read all.
            let _ = stream.write_all(request.as_bytes());
            let answer = rest(stream).with_context(|| format!("{guest}: {short:?}"))?;
            // One that was reset may have lost what was written.
            let lost = *status == "431" && answer.is_empty();
            ensure!(
                lost || statuses(&answer) == [*status],
                "{guest}: {short:?}: {answer:?}"
            );
        }
        ensure!(http::get(port, "/")?.status == 200, "{guest}: still there");
        stop(running)?;
    }
    Ok(())
}

fn rows(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[])?;
        let first = "GET /method HTTP/1.1\r\nHost: x\r\n\r\n";
        let second = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\none\r\n3\r\ntwo\r\n0\r\nA-Trailer: yes\r\n\r\n";
        let third = "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let all = format!("{first}{second}{third}");
        let answer = rest(open(port, all.as_bytes())?)?;
        ensure!(statuses(&answer) == ["200"; 3], "{guest}: {answer:?}");
        let get = answer.find("GET\n").context("no GET")?;
        let echoed = answer.find("one").context("no body")?;
        ensure!(get < echoed && answer.contains("two"), "{answer:?}");
        ensure!(
            !answer.contains("hello from"),
            "HEAD has a body: {answer:?}"
        );
        // In pieces.
        let mut stream = open(port, b"")?;
        stream.set_nodelay(true)?;
        for byte in all.as_bytes() {
            stream.write_all(&[*byte])?;
        }
        let answer = rest(stream)?;
        ensure!(statuses(&answer) == ["200"; 3], "{guest}: {answer:?}");
        stop(running)?;
    }
    Ok(())
}

fn expects(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[])?;
        // A guest may begin its response before it wants the body: that of 0.3
        // does, that of 0.2 now and then.
        let asked = (0..20).find_map(|_| match is_asked(port) {
            Ok(false) if guest != "http-03" => None,
            other => Some(other),
        });
        asked.with_context(|| format!("{guest} is never asked"))??;
        stop(running)?;
    }
    Ok(())
}

/// Whether the body of a request is asked for before the response begins.
fn is_asked(port: u16) -> Result<bool> {
    let mut stream = open(
        port,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
          Content-Length: 4\r\nConnection: close\r\n\r\n",
    )?;
    let mut told = [0; 12];
    stream.read_exact(&mut told)?;
    ensure!(
        [b"HTTP/1.1 100", b"HTTP/1.1 200"].contains(&&told),
        "{told:?}"
    );
    stream.write_all(b"body")?;
    let answer = rest(stream)?;
    ensure!(answer.contains("body"), "{answer:?}");
    Ok(&told == b"HTTP/1.1 100")
}

fn curl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60"])
        .args(arguments)
        .output()
        .context("curl")?;
    ensure!(output.status.success(), "curl {arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn http2(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[])?;
        let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
        let body = "0123456789".repeat(50_000);
        let file = test.file("body", &body)?;
        let data = format!("@{}", file.display());
        let direct = [
            "--http2-prior-knowledge",
            "--write-out",
            "\n%{http_version}",
        ];
        let (method, echo) = (url("/method"), url("/echo"));
        let get = curl(&[&direct[..], &[&method]].concat())?;
        ensure!(get == "GET\n\n2", "{guest}: {get:?}");
        let post = [&direct[..], &["--data-binary", &data, &echo]].concat();
        ensure!(curl(&post)? == format!("{body}\n2"), "{guest}: the body");
        // Whoever asks for an upgrade is answered as before.
        let get = curl(&["--http2", "--write-out", "%{http_version}", &url("/method")])?;
        ensure!(get == "GET\n1.1", "{guest}: {get:?}");
        stop(running)?;
    }
    Ok(())
}

fn large_bodies(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[("io.wisp.http.max-body", "1000")])?;
        ensure!(
            http::post(port, "/echo", &[b'x'; 1000])?.status == 200,
            "{guest}"
        );
        let head = "POST /echo HTTP/1.1\r\nHost: x\r\n";
        let known = format!("{head}Content-Length: 1001\r\n\r\n");
        let answer = rest(open(port, known.as_bytes())?)?;
        ensure!(statuses(&answer) == ["413"], "{guest}: {answer:?}");
        // Of chunks, the length is known when they have come: a guest that has
        // not answered by then does not.
        let chunk = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n",
            "x".repeat(1001)
        );
        let answer = rest(open(port, chunk.as_bytes())?)?;
        let broken = !answer.ends_with("0\r\n\r\n") && !answer.contains("xxx");
        ensure!(
            broken || statuses(&answer) == ["413"],
            "{guest}: {answer:?}"
        );
        ensure!(http::get(port, "/")?.status == 200, "{guest}");
        stop(running)?;
    }
    Ok(())
}

fn late(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[("io.wisp.http.request-timeout", "1s")])?;
        for path in ["/spin", "/sleep?ms=600000"] {
            let stream = http::request(port, "GET", path, b"")?;
            // Others are answered meanwhile.
            ensure!(
                http::get(port, "/")?.status == 200,
                "{guest}: beside {path}"
            );
            ensure!(http::finish(stream)?.status == 504, "{guest}: {path}");
            running.stderr.until("no response after 1s", PATIENCE)?;
        }
        stop(running)?;
    }
    Ok(())
}

fn queue(test: &Test<'_>) -> Result<()> {
    let limits = [
        ("io.wisp.http.max-requests", "1"),
        ("io.wisp.http.queue", "0"),
    ];
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &limits)?;
        let first = http::request(port, "GET", "/sleep?ms=5000", b"")?;
        let close = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let told = wait::until(PATIENCE, || {
            let answer = rest(open(port, close.as_bytes()).ok()?).ok()?;
            (statuses(&answer) == ["503"]).then_some(answer)
        });
        let answer = told.context("all are answered at once")?;
        ensure!(
            answer.to_lowercase().contains("retry-after: 1"),
            "{answer:?}"
        );
        ensure!(http::finish(first)?.status == 200, "{guest}: the first");
        ensure!(http::get(port, "/")?.status == 200, "{guest}: afterwards");
        stop(running)?;
    }
    // With room in the queue, whoever waits is answered.
    let limits = [
        ("io.wisp.http.max-requests", "1"),
        ("io.wisp.http.queue", "8"),
    ];
    let (running, port) = serve(test, "http-02", &limits)?;
    let waiting = (0..8)
        .map(|_| http::request(port, "GET", "/sleep?ms=50", b""))
        .collect::<Result<Vec<_>>>()?;
    for stream in waiting {
        ensure!(http::finish(stream)?.status == 200, "one that waited");
    }
    stop(running)
}

fn connections(test: &Test<'_>) -> Result<()> {
    let (running, port) = serve(test, "http-02", &[("io.wisp.http.max-connections", "1")])?;
    let mut held = open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    // It is answered, so it has been accepted.
    held.read_exact(&mut [0; 12])?;
    let answer = rest(open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?)?;
    ensure!(statuses(&answer) == ["503"], "{answer:?}");
    drop(held);
    let served = wait::until(PATIENCE, || {
        http::get(port, "/")
            .ok()
            .filter(|found| found.status == 200)
    });
    served.context("its place is not free again")?;
    stop(running)
}

fn slow(test: &Test<'_>) -> Result<()> {
    let times = [
        ("io.wisp.http.header-timeout", "500ms"),
        ("io.wisp.http.idle-timeout", "1s"),
    ];
    let (running, port) = serve(test, "http-02", &times)?;
    for begun in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let answer = rest(open(port, begun.as_bytes())?)?;
        ensure!(answer.is_empty(), "{begun:?}: {answer:?}");
    }
    let answer = rest(open(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?)?;
    ensure!(statuses(&answer) == ["200"], "{answer:?}");
    // A request that is being answered is neither.
    ensure!(
        http::get(port, "/sleep?ms=3000")?.status == 200,
        "a long request"
    );
    stop(running)
}

fn probes(test: &Test<'_>) -> Result<()> {
    let annotations = [
        ("io.wisp.http.health", "/healthz"),
        ("io.wisp.http.max-requests", "1"),
        ("io.wisp.http.queue", "0"),
    ];
    let (running, port) = serve(test, "http-02", &annotations)?;
    let _busy = http::request(port, "GET", "/sleep?ms=2000", b"")?;
    for _ in 0..3 {
        let probe = http::get(port, "/healthz?x")?;
        ensure!(probe.status == 200 && probe.text() == "ok\n", "{probe:?}");
    }
    stop(running)
}

fn reuse(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let scrape = http::free_port()?;
        let metrics = format!("127.0.0.1:{scrape}");
        let annotations = [
            ("io.wisp.http.reuse", "3"),
            ("io.wisp.metrics.listen", &metrics),
        ];
        let (running, port) = serve(test, guest, &annotations)?;
        let counts = |wanted: &[&str]| {
            let found = wait::until(PATIENCE, || {
                let text = http::get(scrape, "/metrics").ok()?.text();
                let all = wanted
                    .iter()
                    .all(|line| text.lines().any(|found| found == *line));
                all.then_some(())
            });
            found.with_context(|| format!("{guest}: {wanted:?}"))
        };
        let after = |made: u32, reused: u32, failed: u32| {
            counts(&[
                &format!("wisp_http_instantiate_duration_seconds_count {made}"),
                &format!("wisp_http_instances_reused_total {reused}"),
                &format!("wisp_http_instances_failed_total {failed}"),
                "wisp_http_requests_in_flight 0",
            ])
        };
        for (made, reused) in [(1, 0), (1, 1), (1, 2), (2, 2)] {
            ensure!(http::get(port, "/")?.status == 200, "{guest}");
            after(made, reused, 0)?;
        }
        // One that has failed is not used again.
        ensure!(http::get(port, "/trap")?.status == 500, "{guest}");
        after(2, 3, 1)?;
        ensure!(http::get(port, "/")?.status == 200, "{guest}");
        after(3, 3, 1)?;
        counts(&[
            "wisp_http_requests_total{code=\"200\"} 5",
            "wisp_http_requests_total{code=\"500\"} 1",
        ])?;
        ensure!(http::get(scrape, "/other")?.status == 404, "{guest}");
        stop(running)?;
    }
    Ok(())
}

fn logs(test: &Test<'_>) -> Result<()> {
    let request = "GET /no HTTP/1.1\r\nHost: x\r\nUser-Agent: a\"b\r\nConnection: close\r\n\r\n";
    for (format, expected) in [
        ("common", "\"GET /no HTTP/1.1\" 404 13 \"-\" \"a\\\"b\"\n"),
        (
            "json",
            "\"target\":\"/no\",\"protocol\":\"HTTP/1.1\",\"status\":404,\"bytes\":13,",
        ),
    ] {
        let (running, port) = serve(test, "http-02", &[("io.wisp.http.access-log", format)])?;
        rest(open(port, request.as_bytes())?)?;
        running.stdout.until(expected, PATIENCE)?;
        stop(running)?;
    }
    let (running, port) = serve(test, "http-02", &[])?;
    rest(open(port, request.as_bytes())?)?;
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.out().is_empty(), "{ended:?}");
    Ok(())
}

fn grace(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, &[("io.wisp.http.grace", "500ms")])?;
        let _long = http::request(port, "GET", "/sleep?ms=600000", b"")?;
        ensure!(http::get(port, "/")?.status == 200, "{guest}");
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.code == 143, "{guest}: {ended:?}");
        ensure!(
            ended.err().contains("io.wisp.http.grace"),
            "{guest}: {ended:?}"
        );
    }
    let (running, port) = serve(test, "http-02", &[("io.wisp.http.grace", "1h")])?;
    let _long = http::request(port, "GET", "/sleep?ms=600000", b"")?;
    ensure!(http::get(port, "/")?.status == 200, "beside it");
    running.kill(Signal::SIGTERM)?;
    let closed = wait::until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).err());
    closed.context("it still accepts connections")?;
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 143, "{ended:?}");
    Ok(())
}

fn annotations(test: &Test<'_>) -> Result<()> {
    let image = test.image("http-02")?;
    for (key, value) in [
        ("io.wisp.http.max-requests", "0"),
        ("io.wisp.http.max-body", "much"),
        ("io.wisp.http.request-timeout", "30"),
        ("io.wisp.http.work-timeout", "1s"),
        ("io.wisp.http.reuse", "0"),
        ("io.wisp.http.concurrency", "2"),
        ("io.wisp.http.health", "healthz"),
        ("io.wisp.http.access-log", "yes"),
        ("io.wisp.metrics.listen", "9090"),
        ("io.wisp.http.max-request", "1"),
    ] {
        let ended = test.run(&image).annotation(key, value).ctr()?;
        ensure!(ended.code != 0, "{key} = {value}: it ran");
        ensure!(
            ended.err().contains(key),
            "{key} = {value}: {}",
            ended.err()
        );
    }
    Ok(())
}
