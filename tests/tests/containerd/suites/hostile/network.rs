//! Addresses that no wildcard covers.

use super::super::{Case, cases as all};
use super::{denied, to_end};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Test, command, http};

pub fn cases() -> Vec<Case> {
    all(
        "hostile network",
        &[
            ("no forbidden address is reached by a socket", sockets),
            ("no forbidden address is reached by a request", requests),
            ("the node's own addresses take a grant of their own", node),
            ("a redirect leads nowhere that is not granted", redirect),
        ],
    )
}

const OUT: &str = "io.wisp.net.outbound";

/// Addresses of the node and its cloud, in all their disguises.
const FORBIDDEN: [&str; 8] = [
    "169.254.169.254",
    "169.254.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[64:ff9b::a9fe:a9fe]",
];

/// The same for what listens on the host's own loopback.
pub const LOOPBACK: [&str; 8] = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f01:203]",
    "[64:ff9b::7f00:1]",
];

/// Sockets on all of the host's addresses, to whom nobody may come.
pub struct Host {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    pub port: u16,
}

impl Host {
    pub fn listen() -> Result<Self> {
        let tcp = TcpListener::bind("[::]:0")?;
        let port = tcp.local_addr()?.port();
        let udp = UdpSocket::bind(("::", port))?;
        Ok(Self {
            tcp: vec![tcp],
            udp: vec![udp],
            port,
        })
    }

    pub fn nobody_came(&self) -> Result<()> {
        for listener in &self.tcp {
            listener.set_nonblocking(true)?;
            ensure!(listener.accept().is_err(), "somebody connected");
        }
        for socket in &self.udp {
            socket.set_nonblocking(true)?;
            ensure!(socket.recv(&mut [0; 16]).is_err(), "a datagram came");
        }
        Ok(())
    }

    /// Where a guest would find it, or the cloud.
    pub fn targets(&self) -> Vec<String> {
        FORBIDDEN
            .iter()
            .chain(&LOOPBACK)
            .map(|address| format!("{address}:{}", self.port))
            .collect()
    }
}

fn sockets(test: &Test<'_>) -> Result<()> {
    let image = test.image("hostile")?;
    let host = Host::listen()?;
    let targets = host.targets();
    for granted in ["*", "tcp://*, udp://*", "0.0.0.0/0, [::/0]"] {
        for protocol in ["tcp", "udp"] {
            let mut args = vec!["connect", protocol];
            args.extend(targets.iter().map(String::as_str));
            let run = test.run(&image).net_host().annotation(OUT, granted);
            let (_, err) = denied(run.args(&args), targets.len())?;
            let told = err
                .lines()
                .filter(|line| line.starts_with("wisp: refused: "));
            ensure!(told.count() >= 5, "{err}");
            host.nobody_came()?;
        }
    }
    Ok(())
}

/// Has a server of `guest` fetch each of `urls`; answers the statuses.
fn fetch(test: &Test<'_>, guest: &str, granted: &str, urls: &[String]) -> Result<Vec<u16>> {
    let image = test.image(guest)?;
    let port = http::free_port()?;
    let running = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
        .annotation(OUT, granted)
        .start()?;
    let statuses = urls
        .iter()
        .map(|url| http::get(port, &format!("/outbound?url={url}")).map(|r| r.status))
        .collect();
    let told = running.end_by(Signal::SIGTERM)?.err();
    let lines = told
        .lines()
        .filter(|line| line.starts_with("wisp: refused: "));
    ensure!(lines.count() > 0, "{told}");
    statuses
}

fn requests(test: &Test<'_>) -> Result<()> {
    let host = Host::listen()?;
    let urls: Vec<_> = host
        .targets()
        .iter()
        .map(|target| format!("http://{target}/"))
        .collect();
    for guest in ["http-02", "http-03"] {
        let statuses = fetch(test, guest, "*", &urls)?;
        let wrong: Vec<_> = urls
            .iter()
            .zip(&statuses)
            .filter(|(_, s)| **s != 502)
            .collect();
        ensure!(wrong.is_empty(), "{guest}: {wrong:?}");
        host.nobody_came()?;
    }
    Ok(())
}

/// The addresses of this machine that others could reach it by.
fn own_addresses() -> Result<Vec<IpAddr>> {
    let mut ip = Command::new("ip");
    let told = command::run(ip.args(["-o", "addr", "show", "up"]), Vec::new(), PATIENCE)?;
    let told = told.out();
    let found = told.lines().filter_map(|line| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| !word.starts_with("inet"));
        let address: IpAddr = words.nth(1)?.split('/').next()?.parse().ok()?;
        let is_special = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        (!is_special).then_some(address)
    });
    Ok(found.collect())
}

fn node(test: &Test<'_>) -> Result<()> {
    let image = test.image("hostile")?;
    let host = Host::listen()?;
    for address in own_addresses()? {
        let target = SocketAddr::new(address, host.port).to_string();
        let wide = match address {
            IpAddr::V4(_) => "*, 0.0.0.0/1, 128.0.0.0/1".to_owned(),
            IpAddr::V6(_) => "*, [::/1], [8000::/1]".to_owned(),
        };
        let run = |granted: &str| {
            let run = test.run(&image).net_host().annotation(OUT, granted);
            run.args(&["connect", "tcp", &target])
        };
        denied(run(&wide), 1)?;
        host.nobody_came()?;
        let ended = to_end(run(&format!("tcp://{target}")))?;
        let reached = format!("REACHED tcp {target}\n");
        ensure!(ended.out().starts_with(&reached), "{ended:?}");
        ensure!(
            host.tcp.iter().any(|tcp| tcp.accept().is_ok()),
            "nobody came"
        );
    }
    Ok(())
}

/// Answers whoever comes that what they want is at `elsewhere`, `times` times.
fn redirecting(
    listener: TcpListener,
    elsewhere: SocketAddr,
    times: usize,
) -> std::thread::JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || {
        for _ in 0..times {
            let (mut peer, _) = listener.accept()?;
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                match peer.read(&mut buffer)? {
                    0 => break,
                    read => request.extend_from_slice(&buffer[..read]),
                }
            }
            let head = format!("HTTP/1.1 307 Elsewhere\r\nlocation: http://{elsewhere}/\r\n");
            peer.write_all(head.as_bytes())?;
            peer.write_all(b"content-length: 0\r\nconnection: close\r\n\r\n")?;
        }
        Ok(())
    })
}

fn redirect(test: &Test<'_>) -> Result<()> {
    let guests = ["http-02", "http-03"];
    let host = Host::listen()?;
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], host.port));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let granted = listener.local_addr()?;
    let server = redirecting(listener, elsewhere, guests.len());
    for guest in guests {
        let urls = [
            format!("http://{granted}/"),
            // Where the guest was told to go.
            format!("http://{elsewhere}/"),
        ];
        let statuses = fetch(test, guest, &format!("http://{granted}"), &urls)?;
        ensure!(statuses == [307, 502], "{guest}: {statuses:?}");
    }
    server.join().ok().context("the server panicked")??;
    host.nobody_came()
}
