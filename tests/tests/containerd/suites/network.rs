//! Where a guest may connect and listen: nowhere, then where it is granted.

use super::{Case, fails, works};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use wisp_tests::{Test, http};

pub fn cases() -> Vec<Case> {
    super::cases(
        "network",
        &[
            ("no socket leaves without a grant", no_sockets),
            ("a granted address is reached and no other", granted_socket),
            ("no name is looked up without a grant", no_names),
            ("no port is opened without a grant", no_listening),
            ("a granted port is opened", granted_listening),
            ("no HTTP request leaves without a grant", no_outbound_http),
            (
                "a granted HTTP address is reached and no other",
                granted_outbound_http,
            ),
            (
                "a star covers no loopback address of the host's network",
                star_is_not_loopback,
            ),
        ],
    )
}

fn nobody_came(listener: &TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    ensure!(listener.accept().is_err(), "somebody connected");
    listener.set_nonblocking(false)?;
    Ok(())
}

fn no_sockets(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?.to_string();
    fails(test.run(&image).net_host().args(&["tcp-connect", &target]))?;
    nobody_came(&listener)?;

    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let target = socket.local_addr()?.to_string();
    fails(
        test.run(&image)
            .net_host()
            .args(&["udp-send", &target, "text"]),
    )?;
    socket.set_nonblocking(true)?;
    ensure!(socket.recv(&mut [0; 16]).is_err(), "a datagram came");
    Ok(())
}

fn granted_socket(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let granted = TcpListener::bind("127.0.0.1:0")?;
    let other = TcpListener::bind("127.0.0.1:0")?;
    let (target, beside) = (
        granted.local_addr()?.to_string(),
        other.local_addr()?.to_string(),
    );
    let run = |to: &str| {
        test.run(&image)
            .net_host()
            .annotation("io.wisp.net.outbound", &format!("tcp://{target}"))
            .args(&["tcp-connect", to])
    };
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut peer, _) = granted.accept()?;
        peer.write_all(b"welcome\n")
    });
    let said = works(run(&target))?;
    ensure!(
        said == format!("connected to {target}\nwelcome\n"),
        "{said}"
    );
    server.join().ok().context("the server panicked")??;
    fails(run(&beside))?;
    nobody_came(&other)?;
    // A grant for another scheme is none.
    let run = test.run(&image).net_host().annotation(
        "io.wisp.net.outbound",
        &format!("udp://{beside},http://{beside}"),
    );
    fails(run.args(&["tcp-connect", &beside]))?;
    nobody_came(&other)
}

fn no_names(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    fails(test.run(&image).net_host().args(&["resolve", "localhost"])).map(drop)
}

fn no_listening(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let address = format!("127.0.0.1:{}", http::free_port()?);
    let run = test.run(&image).net_host();
    fails(run.args(&["tcp-listen", &address]))?;
    // A grant to connect is none to listen.
    let run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.net.outbound", &address);
    fails(run.args(&["tcp-listen", &address])).map(drop)
}

fn granted_listening(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let address = format!("127.0.0.1:{}", http::free_port()?);
    let running = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.net.listen", &format!("tcp://{address}"))
        .args(&["tcp-listen", &address])
        .start()?;
    running
        .stdout
        .until("listening on", wisp_tests::wait::PATIENCE)?;
    let mut stream = std::net::TcpStream::connect(&address)?;
    stream.write_all(b"there and back")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = String::new();
    stream.read_to_string(&mut back)?;
    ensure!(back == "there and back", "{back}");
    let ended = running.finish()?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

/// A server of plain HTTP that gives one answer, ever.
fn answer_once(listener: TcpListener) -> std::thread::JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept()?;
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.windows(4).any(|four| four == b"\r\n\r\n") {
            let read = peer.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            request.extend_from_slice(&buffer[..read]);
        }
        peer.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\noutside\n",
        )
    })
}

/// Asks a server of `guest` with these grants to fetch from `target`.
fn fetch(
    test: &Test<'_>,
    guest: &str,
    grants: Option<&str>,
    target: &str,
) -> Result<http::Response> {
    let image = test.image(guest)?;
    let port = http::free_port()?;
    let mut run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"));
    if let Some(grants) = grants {
        run = run.annotation("io.wisp.net.outbound", grants);
    }
    let running = run.start()?;
    let response = http::get(port, &format!("/outbound?url=http://{target}/"));
    running.end_by(Signal::SIGTERM)?;
    response
}

fn no_outbound_http(test: &Test<'_>) -> Result<()> {
    for guest in ["http-02", "http-03"] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let target = listener.local_addr()?.to_string();
        let response = fetch(test, guest, None, &target)?;
        ensure!(
            response.status == 502,
            "{guest}: {} {}",
            response.status,
            response.text()
        );
        nobody_came(&listener)?;
    }
    Ok(())
}

fn granted_outbound_http(test: &Test<'_>) -> Result<()> {
    for guest in ["http-02", "http-03"] {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let other = TcpListener::bind("127.0.0.1:0")?;
        let (target, beside) = (
            listener.local_addr()?.to_string(),
            other.local_addr()?.to_string(),
        );
        let server = answer_once(listener);
        let grants = format!("http://{target}");
        let response = fetch(test, guest, Some(&grants), &target)?;
        ensure!(
            response.status == 200 && response.text() == "outside\n",
            "{guest}: {} {}",
            response.status,
            response.text()
        );
        server.join().ok().context("the server panicked")??;
        let response = fetch(test, guest, Some(&grants), &beside)?;
        ensure!(
            response.status == 502,
            "{guest}: {} {}",
            response.status,
            response.text()
        );
        nobody_came(&other)?;
    }
    Ok(())
}

fn star_is_not_loopback(test: &Test<'_>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?.to_string();
    let image = test.image("tour")?;
    let run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.net.outbound", "*");
    fails(run.args(&["tcp-connect", &target]))?;
    let response = fetch(test, "http-02", Some("*"), &target)?;
    ensure!(
        response.status == 502,
        "{} {}",
        response.status,
        response.text()
    );
    nobody_came(&listener)
}
