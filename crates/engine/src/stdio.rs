//! The guest's output streams: the process's own, without a buffer, so that
//! nothing is lost when a signal ends the process.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// How much the guest may hand over in one go.
const CHUNK: usize = 64 * 1024;

/// Standard output or error.
#[derive(Clone)]
pub struct Output {
    file: Arc<File>,
    terminal: bool,
}

impl Output {
    pub fn stdout() -> io::Result<Self> {
        Self::new(io::stdout(), io::IsTerminal::is_terminal(&io::stdout()))
    }

    pub fn stderr() -> io::Result<Self> {
        Self::new(io::stderr(), io::IsTerminal::is_terminal(&io::stderr()))
    }

    fn new(fd: impl AsFd, terminal: bool) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(File::from(fd.as_fd().try_clone_to_owned()?)),
            terminal,
        })
    }

    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&*self.file).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Whoever shares the other end may have made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_writable(&self.file)?;
                }
                result => return result,
            }
        }
    }

    /// Writes all of `bytes`, however long the reader takes.
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_some(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }
}

fn wait_writable(file: &File) -> io::Result<()> {
    let mut polled = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid entry, and the count says so.
    match unsafe { libc::poll(&mut polled, 1, -1) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_all(&bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                StreamError::Closed
            } else {
                StreamError::LastOperationFailed(error.into())
            }
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write_some(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_slow_reader_on_a_nonblocking_stream_gets_every_byte() {
        let (mut reader, writer) = UnixStream::pair().expect("pair");
        writer.set_nonblocking(true).expect("nonblocking");
        let output = Output::new(&writer, false).expect("output");
        drop(writer);
        let sent: Vec<u8> = (0..4_000_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let thread = std::thread::spawn(move || output.write_all(&sent));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).expect("read");
        thread.join().expect("join").expect("write");
        assert!(received == expected);
    }

    #[test]
    fn a_reader_that_left_closes_the_stream() {
        let (reader, writer) = UnixStream::pair().expect("pair");
        let mut output = Output::new(&writer, false).expect("output");
        drop(reader);
        let error = output.write(Bytes::from_static(b"x")).expect_err("closed");
        assert!(matches!(error, StreamError::Closed));
    }
}
