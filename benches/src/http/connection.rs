//! One connection of a client, on which requests follow each other.

use crate::http::response::Reader;
use anyhow::{Context, Result, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Room for what has been read and not understood yet.
const BUFFER: usize = 64 * 1024;
/// How long a server may take to accept, and to answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for on every connection, and the length of the body that
/// answers it.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub request: Vec<u8>,
    pub response: u64,
}

impl Exchange {
    /// A GET of a path that is answered with a body of `response` bytes.
    pub fn get(path: &str, response: u64) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        Self {
            request: head.into_bytes(),
            response,
        }
    }

    /// A POST of a body that is answered with one of its length.
    pub fn post(path: &str, body: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        Self {
            request: [head.as_bytes(), body].concat(),
            response: body.len() as u64,
        }
    }
}

#[derive(Debug)]
pub struct Connection<'a> {
    pub stream: TcpStream,
    exchange: &'a Exchange,
    sent: usize,
    buffer: Box<[u8]>,
    filled: usize,
    reader: Reader,
    /// What the latency of the request under way counts from; none is if there
    /// is nothing here.
    since: Option<Instant>,
}

impl<'a> Connection<'a> {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not let it.
    pub fn new(address: SocketAddr, exchange: &'a Exchange) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            exchange,
            sent: 0,
            buffer: vec![0; BUFFER].into(),
            filled: 0,
            reader: Reader::new(),
            since: None,
        })
    }

    /// Begins a request whose latency counts from `since`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn begin(&mut self, since: Instant) -> Result<()> {
        self.since = Some(since);
        self.sent = 0;
        self.send()
    }

    /// Sends on what the socket takes.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn send(&mut self) -> Result<()> {
        while self.sending() {
            match self.stream.write(&self.exchange.request[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send a request"),
            }
        }
        Ok(())
    }

    /// Whether there is more to be sent than the socket has taken.
    pub fn sending(&self) -> bool {
        self.since.is_some() && self.sent < self.exchange.request.len()
    }

    /// Reads once; answers what the latency of the request counts from, if its
    /// response has come to its end.
    ///
    /// # Errors
    /// What is not the response that is due.
    pub fn receive(&mut self) -> Result<Option<Instant>> {
        let read = match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => bail!("the server has closed a connection"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error).context("read a response"),
        };
        self.filled += read;
        let got = self.reader.read(&self.buffer[..self.filled])?;
        self.buffer.copy_within(got.used..self.filled, 0);
        self.filled -= got.used;
        ensure!(self.filled < BUFFER, "a response's head is too long");
        let Some(length) = got.ended else {
            return Ok(None);
        };
        let due = self.exchange.response;
        ensure!(length == due, "a body of {length} bytes instead of {due}");
        ensure!(!self.sending(), "a response before the request was sent");
        ensure!(self.filled == 0, "more than the response");
        let since = self.since.take();
        ensure!(since.is_some(), "a response without a request");
        Ok(since)
    }
}
