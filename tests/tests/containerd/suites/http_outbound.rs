//! Requests that HTTP components make.

use super::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use wisp_tests::http::{self, Response};
use wisp_tests::upstream::Upstream;
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Run, Running, Test, paths};

const GUESTS: [&str; 2] = ["http-02", "http-03"];

pub fn cases() -> Vec<Case> {
    super::cases(
        "http_outbound",
        &[
            (
                "requests of one instance after another share a connection",
                one_connection,
            ),
            (
                "HTTP/2 is spoken to a server that agrees on it by TLS",
                http2,
            ),
            (
                "the certificates of the image are believed, or those that are named",
                certificates,
            ),
            (
                "a proxy is asked in the target's place if both are granted",
                proxied,
            ),
        ],
    )
}

/// A server of the guest whose image has this file, on the host's network.
fn serve<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    file: Option<(&str, &str)>,
    describe: impl FnOnce(Run<'t, 'n>) -> Run<'t, 'n>,
) -> Result<(Running<'t, 'n>, u16)> {
    let image = match file {
        None => test.image(guest)?,
        Some((path, content)) => {
            let name = path.replace(['/', '.'], "-");
            let host = test.file(&format!("{guest}{name}"), content)?;
            let add = format!("{}:{path}", host.display());
            let image = format!("{guest}-with{name}");
            test.packed(&image, &paths::guest(guest)?, &["--add", &add])?
        }
    };
    let port = http::free_port()?;
    let run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"));
    Ok((describe(run).start()?, port))
}

fn fetch(port: u16, url: &str) -> Result<Response> {
    http::get(port, &format!("/outbound?url={url}"))
}

fn is(response: &Response, status: u16, text: &str) -> Result<()> {
    ensure!(
        response.status == status && response.text().contains(text),
        "expected {status} with {text:?}, got {} {:?}",
        response.status,
        response.text()
    );
    Ok(())
}

fn stop(running: Running<'_, '_>) -> Result<()> {
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

fn one_connection(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let upstream = Upstream::plain()?;
        let grant = format!("http://127.0.0.1:{}", upstream.port);
        let (running, port) = serve(test, guest, None, |run| {
            run.annotation("io.wisp.net.outbound", &grant)
        })?;
        for _ in 0..10 {
            is(
                &fetch(port, &format!("{grant}/x"))?,
                200,
                "HTTP/1.1 GET /x\n",
            )?;
        }
        let connections = upstream.connections();
        ensure!(connections == 1, "{guest}: {connections} connections");
        // One that is kept does not keep the server.
        stop(running)?;
    }
    Ok(())
}

fn http2(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let upstream = Upstream::secure(&["h2", "http/1.1"])?;
        let url = format!("https://localhost:{}/x", upstream.port);
        let ca = Some(("/etc/ssl/certs/ca-certificates.crt", &*upstream.certificate));
        let (running, port) = serve(test, guest, ca, grant)?;
        for _ in 0..5 {
            is(&fetch(port, &url)?, 200, &format!("HTTP/2.0 GET {url}\n"))?;
        }
        let connections = upstream.connections();
        ensure!(connections == 1, "{guest}: {connections} connections");
        stop(running)?;
    }
    Ok(())
}

fn grant<'t, 'n>(run: Run<'t, 'n>) -> Run<'t, 'n> {
    run.annotation("io.wisp.net.outbound", "https://localhost")
}

fn certificates(test: &Test<'_>) -> Result<()> {
    let upstream = Upstream::secure(&[])?;
    let url = format!("https://localhost:{}/x", upstream.port);
    let (running, port) = serve(test, "http-02", None, grant)?;
    is(&fetch(port, &url)?, 502, "ertificate")?;
    stop(running)?;
    let ca = Some(("/own.pem", &*upstream.certificate));
    let (running, port) = serve(test, "http-02", ca, |run| {
        grant(run).env("SSL_CERT_FILE", "/own.pem")
    })?;
    is(&fetch(port, &url)?, 200, "HTTP/1.1 GET /x\n")?;
    stop(running)?;
    let (running, port) = serve(test, "http-02", None, |run| {
        grant(run).env("SSL_CERT_FILE", "/none.pem")
    })?;
    is(&fetch(port, &url)?, 502, "SSL_CERT_FILE=/none.pem")?;
    running.stderr.until("SSL_CERT_FILE=/none.pem", PATIENCE)?;
    stop(running)
}

fn proxied(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        // To a server of HTTP a whole URL means that it is asked as a proxy.
        let proxy = Upstream::plain()?;
        let place = format!("http://127.0.0.1:{}", proxy.port);
        let serve = |rules: &str| {
            serve(test, guest, None, |run| {
                run.annotation("io.wisp.net.outbound", rules)
                    .env("HTTP_PROXY", &place)
            })
        };
        let (running, port) = serve(&format!("http://a.invalid, {place}"))?;
        let response = fetch(port, "http://a.invalid/x")?;
        is(&response, 200, "HTTP/1.1 GET http://a.invalid/x\n")?;
        stop(running)?;
        let (running, port) = serve("http://a.invalid")?;
        ensure!(fetch(port, "http://a.invalid/x")?.status == 502, "{guest}");
        running
            .stderr
            .until(&format!("io.wisp.net.outbound would: {place}"), PATIENCE)?;
        stop(running)?;
        ensure!(proxy.connections() == 1, "{guest}: it was asked again");

        // This machine is asked directly.
        let beside = Upstream::plain()?;
        let url = format!("http://127.0.0.1:{}", beside.port);
        let (running, port) = serve(&format!("{url}, {place}"))?;
        is(&fetch(port, &format!("{url}/x"))?, 200, "HTTP/1.1 GET /x\n")?;
        ensure!(proxy.connections() == 1, "{guest}: it was asked for others");
        stop(running)?;
    }
    Ok(())
}
