//! The smallest HTTP client that the tests need.

use crate::wait;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A response, its body undone of chunking.
#[derive(Clone, Debug)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A port on loopback that nobody has at the moment.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Sends a GET and reads the response.
///
/// # Errors
/// When the connection or the response fails.
pub fn get(port: u16, path: &str) -> Result<Response> {
    get_from(local(port), path)
}

/// Sends a GET to any address and reads the response.
///
/// # Errors
/// When the connection or the response fails.
pub fn get_from(address: SocketAddr, path: &str) -> Result<Response> {
    finish(request_to(address, "GET", path, &[])?)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Sends a POST and reads the response.
///
/// # Errors
/// When the connection or the response fails.
pub fn post(port: u16, path: &str, body: &[u8]) -> Result<Response> {
    finish(request(port, "POST", path, body)?)
}

/// Sends a request and leaves the response to be read.
///
/// # Errors
/// When nobody listens, or the connection breaks.
pub fn request(port: u16, method: &str, path: &str, body: &[u8]) -> Result<TcpStream> {
    request_to(local(port), method, path, body)
}

/// Sends a request to any address and leaves the response to be read.
///
/// # Errors
/// When nobody listens, or the connection breaks.
pub fn request_to(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<TcpStream> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(wait::here(PATIENCE)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )?;
    let mut sender = stream.try_clone()?;
    let body = body.to_vec();
    // An echoing server sends while it still receives.
    std::thread::spawn(move || sender.write_all(&body));
    Ok(stream)
}

/// Reads a response to its end.
///
/// # Errors
/// When the connection breaks or what comes is no response.
pub fn finish(mut stream: TcpStream) -> Result<Response> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).context("read the response")?;
    let split = all
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .with_context(|| format!("no response: {:?}", String::from_utf8_lossy(&all)))?;
    let head = String::from_utf8_lossy(&all[..split]).to_lowercase();
    let rest = &all[split + 4..];
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    let body = if head.contains("transfer-encoding: chunked") {
        dechunk(rest)?
    } else {
        rest.to_vec()
    };
    Ok(Response { status, body })
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .context("the chunked body is cut off")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end])?.trim(), 16)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        ensure!(rest.len() >= size + 2, "a chunk is cut off");
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
