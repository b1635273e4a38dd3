//! What a guest is refused is told, with what would grant it.

use super::{Case, fails, works};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Test, http};

pub fn cases() -> Vec<Case> {
    super::cases(
        "told",
        &[
            ("a socket without any grant", no_socket),
            ("a connection that no rule grants", no_connection),
            ("listening where no rule grants it", no_listening),
            ("a name that no rule has is not even looked up", no_lookup),
            ("an HTTP request that no rule grants", no_request),
        ],
    )
}

fn line(told: &str, parts: &[&str]) -> Result<()> {
    let found = told
        .lines()
        .any(|line| line.starts_with("wisp: refused: ") && parts.iter().all(|p| line.contains(p)));
    ensure!(found, "no line with {parts:?} in: {told}");
    Ok(())
}

/// The guest's own error and ours.
fn failing(test: &Test<'_>, annotation: (&str, &str), args: &[&str]) -> Result<String> {
    let image = test.image("tour")?;
    let run = test.run(&image).net_host();
    let ended = run
        .annotation(annotation.0, annotation.1)
        .args(args)
        .ctr()?;
    ensure!(ended.code == 1, "{ended:?}");
    ensure!(ended.err().contains("tour "), "{ended:?}");
    Ok(ended.err())
}

const OUT: &str = "io.wisp.net.outbound";
const LISTEN: &str = "io.wisp.net.listen";

fn no_socket(test: &Test<'_>) -> Result<()> {
    let none = (OUT, "");
    let told = failing(test, none, &["tcp-connect", "127.0.0.1:1"])?;
    line(&told, &["a tcp socket", OUT, LISTEN])?;
    let told = failing(test, none, &["udp-send", "127.0.0.1:1", "x"])?;
    line(&told, &["a udp socket", OUT])?;
    // A module has no way to ask.
    let module = test.image("tour-module")?;
    fails(test.run(&module).args(&["tcp-connect", "127.0.0.1:1"])).map(drop)
}

fn no_connection(test: &Test<'_>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let place = listener.local_addr()?.to_string();
    let told = failing(test, (OUT, "tcp://10.0.0.1:1"), &["tcp-connect", &place])?;
    line(
        &told,
        &[
            &format!("connecting to {place} by tcp"),
            &format!("tcp://{place}"),
        ],
    )?;
    let told = failing(test, (OUT, "*"), &["tcp-connect", "169.254.169.254:80"])?;
    line(&told, &["connecting to 169.254.169.254:80"])?;
    let mapped = "[::ffff:169.254.169.254]:80";
    failing(test, (OUT, "*"), &["tcp-connect", mapped]).map(drop)
}

fn no_listening(test: &Test<'_>) -> Result<()> {
    let told = failing(
        test,
        (LISTEN, "tcp://*:1"),
        &["tcp-listen", "127.0.0.1:4000"],
    )?;
    line(&told, &["listening on 127.0.0.1:4000 by tcp", LISTEN])
}

fn no_lookup(test: &Test<'_>) -> Result<()> {
    let granted = (OUT, "tcp://localhost:1");
    let told = failing(test, granted, &["resolve", "secret.example.com"])?;
    line(&told, &["looking up \"secret.example.com\"", OUT])?;
    let image = test.image("tour")?;
    let run = test.run(&image).net_host().annotation(granted.0, granted.1);
    ensure!(works(run.args(&["resolve", "localhost"]))?.contains("127.0.0.1"));
    Ok(())
}

fn no_request(test: &Test<'_>) -> Result<()> {
    for guest in ["http-02", "http-03"] {
        let image = test.image(guest)?;
        let (port, metrics) = (http::free_port()?, http::free_port()?);
        let running = test
            .run(&image)
            .net_host()
            .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
            .annotation("io.wisp.metrics.listen", &format!("127.0.0.1:{metrics}"))
            .annotation(OUT, "http://localhost:1")
            .start()?;
        let response = http::get(port, "/outbound?url=http://127.0.0.1:9/")?;
        ensure!(response.status == 502, "{guest}: {}", response.status);
        running.stderr.until("http://127.0.0.1:9", PATIENCE)?;
        for expected in 2..5 {
            http::get(port, "/outbound?url=http://127.0.0.1:9/")?;
            let counted = http::get(metrics, "/metrics")?.text();
            let line = format!("wisp_guest_refusals_total {expected}");
            ensure!(
                counted.lines().any(|found| found == line),
                "no {line}: {counted}"
            );
        }
        let ended = running.end_by(Signal::SIGTERM)?;
        line(&ended.err(), &["connecting to 127.0.0.1:9 by http", OUT])?;
        line(&ended.err(), &["4 in all, 3 of them not told"])?;
    }
    Ok(())
}
