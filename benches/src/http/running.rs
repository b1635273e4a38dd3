//! Servers that run.

use crate::http::connection::{Exchange, PATIENCE};
use crate::http::containers::Container;
use crate::http::cores;
use crate::http::response::Reader;
use crate::started::{self, Noted};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a start may take: some compile the component first.
const START: Duration = Duration::from_secs(120);

/// A server. Dropping it ends it.
#[derive(Debug)]
pub struct Running<'a> {
    pub address: SocketAddr,
    process: Process<'a>,
}

#[derive(Debug)]
enum Process<'a> {
    Child { child: Child, _noted: Noted },
    Container(Container<'a>),
}

impl<'a> Running<'a> {
    /// The server in a container.
    pub fn container(address: SocketAddr, container: Container<'a>) -> Self {
        Self {
            address,
            process: Process::Container(container),
        }
    }

    /// Starts a process on some processors. What it says goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        address: SocketAddr,
        mut command: Command,
        cpus: &[usize],
        log: &Path,
    ) -> Result<Self> {
        let log = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = cores::on(cpus, || {
            command
                .spawn()
                .with_context(|| format!("start {command:?}"))
        })?;
        let noted = started::process(child.id());
        Ok(Self {
            address,
            process: Process::Child {
                child,
                _noted: noted,
            },
        })
    }

    /// The process that serves.
    pub fn pid(&self) -> i32 {
        match &self.process {
            // Process ids are below 2^22.
            Process::Child { child, .. } => i32::try_from(child.id()).unwrap_or_default(),
            Process::Container(container) => container.pid,
        }
    }

    /// Asks a process to end, and waits until it has.
    ///
    /// # Errors
    /// When it ends as one that failed does, or not in time.
    pub fn end(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid());
        let Process::Child { child, .. } = &mut self.process else {
            bail!("a container is ended by containerd");
        };
        kill(pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "it ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the first answer, which has to be right.
    ///
    /// # Errors
    /// When it ends, does not listen, or answers something else.
    pub fn wait(&mut self, exchange: &Exchange) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let tried = TcpStream::connect_timeout(&self.address, PATIENCE);
            if let Ok(stream) = tried {
                return ask(stream, exchange);
            }
            if let Process::Child { child, .. } = &mut self.process
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended with {status}");
            }
            ensure!(Instant::now() < deadline, "it does not listen");
            sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if let Self::Child { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An address whose port nobody has now.
///
/// # Errors
/// The kernel's.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// One request.
fn ask(mut stream: TcpStream, exchange: &Exchange) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&exchange.request)?;
    let mut reader = Reader::new();
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the server has closed the connection");
        bytes.extend_from_slice(&buffer[..read]);
        let got = reader.read(&bytes)?;
        bytes.drain(..got.used);
        if let Some(length) = got.ended {
            let due = exchange.response;
            ensure!(length == due, "a body of {length} bytes instead of {due}");
            return Ok(());
        }
    }
}
