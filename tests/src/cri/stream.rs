//! The streams behind Exec, Attach and PortForward: a WebSocket to containerd's
//! streaming server, in which each message's first byte names a channel
//! (Kubernetes, `v4.channel.k8s.io`).

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Channels of Exec and Attach.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;

const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take before the question is put again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a read waits before the deadline is looked at again.
const TICK: Duration = Duration::from_millis(50);

/// A WebSocket (RFC 6455), as far as these streams need it.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    pending: Vec<u8>,
}

/// A message, or the end of the connection.
enum Received {
    Message(Vec<u8>),
    End,
}

impl Socket {
    /// Connects to a URL of containerd's.
    fn open(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .with_context(|| format!("no http address: {url}"))?;
        let (host, path) = rest.split_once('/').context("the URL has no path")?;
        let mut stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
        stream.set_read_timeout(Some(TICK))?;
        // What the server makes of the key is not checked: it is no secret.
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nOrigin: http://{host}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2lzcC10ZXN0cy1jbGllbnQ=\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        )?;
        let mut socket = Self {
            stream,
            pending: Vec::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        let head = loop {
            let end = socket
                .pending
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let rest = socket.pending.split_off(end + 4);
                break std::mem::replace(&mut socket.pending, rest);
            }
            ensure!(socket.fill(deadline)?, "the server hung up");
        };
        let head = String::from_utf8_lossy(&head);
        ensure!(head.starts_with("HTTP/1.1 101"), "no WebSocket: {head}");
        Ok(socket)
    }

    /// Reads more; false at the end.
    fn fill(&mut self, deadline: Instant) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.pending.extend_from_slice(&buffer[..read]);
                    return Ok(true);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    ensure!(Instant::now() < deadline, "nothing more came");
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![0x80 | opcode];
        // A client masks what it sends; a mask of zeros changes nothing.
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | u8::try_from(short)?),
            middle @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(middle)?.to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        Ok(self.stream.write_all(&frame)?)
    }

    fn send_on(&mut self, channel: u8, bytes: &[u8]) -> Result<()> {
        const BINARY: u8 = 2;
        let mut message = vec![channel];
        message.extend_from_slice(bytes);
        self.send(BINARY, &message)
    }

    /// The next message. These streams' messages are never in pieces.
    fn receive(&mut self, deadline: Instant) -> Result<Received> {
        const CLOSE: u8 = 8;
        const PING: u8 = 9;
        const PONG: u8 = 10;
        loop {
            let Some((opcode, payload)) = self.frame()? else {
                if !self.fill(deadline)? {
                    return Ok(Received::End);
                }
                continue;
            };
            match opcode {
                CLOSE => return Ok(Received::End),
                PING => self.send(PONG, &payload)?,
                PONG => {}
                _ => return Ok(Received::Message(payload)),
            }
        }
    }

    /// Takes a frame from what has been read, if all of it is there.
    fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let have = &self.pending;
        let (Some(&first), Some(&second)) = (have.first(), have.get(1)) else {
            return Ok(None);
        };
        ensure!(second & 0x80 == 0, "the server masked a frame");
        let (length, head) = match second {
            126 => match have.get(2..4) {
                Some(bytes) => (usize::from(u16::from_be_bytes(bytes.try_into()?)), 4),
                None => return Ok(None),
            },
            127 => match have.get(2..10) {
                Some(bytes) => (usize::try_from(u64::from_be_bytes(bytes.try_into()?))?, 10),
                None => return Ok(None),
            },
            short => (usize::from(short), 2),
        };
        if have.len() < head + length {
            return Ok(None);
        }
        let rest = self.pending.split_off(head + length);
        let mut frame = std::mem::replace(&mut self.pending, rest);
        Ok(Some((first & 0x0f, frame.split_off(head))))
    }
}

/// A running Exec or Attach.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
    /// What came from standard output, and from a terminal.
    pub stdout: Vec<u8>,
    /// What came from standard error.
    pub stderr: Vec<u8>,
    status: Vec<u8>,
    ended: bool,
}

impl Session {
    /// Connects to the URL that Exec or Attach answered.
    ///
    /// # Errors
    /// When the server does not want to.
    pub fn open(url: &str) -> Result<Self> {
        Ok(Self {
            socket: Socket::open(url)?,
            stdout: Vec::new(),
            stderr: Vec::new(),
            status: Vec::new(),
            ended: false,
        })
    }

    /// Types.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.socket.send_on(STDIN, text.as_bytes())
    }

    /// Changes the terminal's size.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        let size = format!(r#"{{"Width":{columns},"Height":{rows}}}"#);
        self.socket.send_on(RESIZE, size.as_bytes())
    }

    /// Waits until `text` has come on standard output.
    ///
    /// # Errors
    /// When it does not come.
    pub fn until(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.stdout).contains(text) {
            let going = self.step(deadline).with_context(|| format!("{self:?}"))?;
            ensure!(going, "the stream ended without {text:?}: {self:?}");
        }
        Ok(())
    }

    /// Types `text` until `answer` has come on standard output. Who attaches is
    /// heard a moment before all of the program's words are passed on.
    ///
    /// # Errors
    /// When it does not come.
    pub fn ask(&mut self, text: &str, answer: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.write(text)?;
            let again = Instant::now() + AGAIN;
            // That nothing came in time is no error yet.
            while Instant::now() < again && self.step(again).unwrap_or(false) {
                if String::from_utf8_lossy(&self.stdout).contains(answer) {
                    return Ok(());
                }
            }
            ensure!(
                !self.ended && Instant::now() < deadline,
                "no {answer:?}: {self:?}"
            );
        }
    }

    /// Waits for the end; answers the exit code.
    ///
    /// # Errors
    /// When it does not end, or the status says anything but an exit code.
    pub fn finish(&mut self) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        while self.step(deadline).with_context(|| format!("{self:?}"))? {}
        let status: Value = serde_json::from_slice(&self.status)
            .with_context(|| format!("no status came: {self:?}"))?;
        if status["status"] == "Success" {
            return Ok(0);
        }
        if status["reason"] != "NonZeroExitCode" {
            bail!("{status}");
        }
        status["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|cause| cause["reason"] == "ExitCode")
            .and_then(|cause| cause["message"].as_str()?.parse().ok())
            .with_context(|| format!("no exit code: {status}"))
    }

    fn step(&mut self, deadline: Instant) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let Received::Message(message) = self.socket.receive(deadline)? else {
            self.ended = true;
            return Ok(false);
        };
        if let Some((channel, bytes)) = message.split_first() {
            match *channel {
                STDOUT => self.stdout.extend_from_slice(bytes),
                STDERR => self.stderr.extend_from_slice(bytes),
                STATUS => self.status.extend_from_slice(bytes),
                other => ensure!(bytes.is_empty(), "channel {other} has {bytes:?}"),
            }
        }
        Ok(true)
    }
}

/// Connects to the URL that PortForward answered for a port, sends `request`, and
/// answers what comes back until the pod closes.
///
/// # Errors
/// When the connection fails, or the pod's side says why it cannot.
pub fn forward(url: &str, request: &str) -> Result<Vec<u8>> {
    const DATA: u8 = 0;
    let mut socket = Socket::open(url)?;
    socket.send_on(DATA, request.as_bytes())?;
    let deadline = Instant::now() + PATIENCE;
    let (mut data, mut errors) = (Vec::new(), Vec::new());
    while let Received::Message(message) = socket.receive(deadline)? {
        match message.split_first() {
            Some((&DATA, bytes)) => data.extend_from_slice(bytes),
            Some((_, bytes)) => errors.extend_from_slice(bytes),
            None => {}
        }
    }
    // Each channel begins with the port.
    ensure!(
        data.len() >= 2 && errors.len() >= 2,
        "the ports did not come"
    );
    ensure!(
        errors.len() == 2,
        "{}",
        String::from_utf8_lossy(&errors[2..])
    );
    Ok(data.split_off(2))
}
