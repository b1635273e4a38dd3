//! Reading a role's reports, and the descriptor that may come with one.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::control::Report;
use crate::error::ContainerError;

/// The longest report: a reason with a backtrace is far below.
const LONGEST: usize = 1 << 20;

/// The daemon's end of a role's control socket.
#[derive(Debug)]
pub struct Reports {
    stream: UnixStream,
    read: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Reports {
    /// Reads from `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            descriptor: None,
        }
    }

    /// The next report; `None` when the other end is closed.
    ///
    /// # Errors
    /// When the socket fails or what comes is no report.
    pub async fn next(&mut self) -> Result<Option<Report>, ContainerError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let report = serde_json::from_slice(&self.read[..end]);
                self.read.drain(..=end);
                return report
                    .map(Some)
                    .map_err(|error| ContainerError::Init(format!("malformed report: {error}")));
            }
            if self.read.len() > LONGEST {
                return Err(ContainerError::Init("a report without end".into()));
            }
            let more = self
                .receive()
                .await
                .map_err(|error| ContainerError::Init(format!("hear from it: {error}")))?;
            if !more {
                return Ok(None);
            }
        }
    }

    /// Sends a line the other way.
    ///
    /// # Errors
    /// When the role is gone.
    pub async fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.stream.write_all(line).await
    }

    /// The last descriptor that has come, once.
    pub fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Whether there was something before the end.
    async fn receive(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        let fd = self.stream.as_raw_fd();
        let (length, descriptor) = self
            .stream
            .async_io(Interest::READABLE, || receive(fd, &mut buffer))
            .await?;
        if descriptor.is_some() {
            self.descriptor = descriptor;
        }
        self.read.extend_from_slice(&buffer[..length]);
        Ok(length > 0)
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(fd, &mut slices, Some(&mut space), flags)?;
    let mut descriptor = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            for number in received {
                // SAFETY: the kernel has just made this descriptor for us alone.
                descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as StdUnixStream;

    use super::*;
    use crate::control::Control;

    fn pair() -> (Control, Reports) {
        let (role, daemon) = StdUnixStream::pair().expect("pair");
        daemon.set_nonblocking(true).expect("nonblocking");
        let daemon = UnixStream::from_std(daemon).expect("stream");
        (Control::new(role), Reports::new(daemon))
    }

    #[tokio::test]
    async fn a_descriptor_comes_with_its_report_and_the_rest_after_it() {
        let (control, mut reports) = pair();
        let (mut here, there) = StdUnixStream::pair().expect("pair");
        control.report(&Report::Warning("first".into()));
        control.send_terminal(there).expect("send");
        control.report(&Report::Added(7));
        drop(control);
        let mut seen = Vec::new();
        while let Some(report) = reports.next().await.expect("report") {
            seen.push(report);
        }
        let expected = [
            Report::Warning("first".into()),
            Report::Terminal,
            Report::Added(7),
        ];
        assert_eq!(seen, expected);
        let received = reports.descriptor().expect("descriptor");
        assert!(reports.descriptor().is_none());
        here.write_all(b"through").expect("write");
        drop(here);
        let mut text = String::new();
        StdUnixStream::from(received)
            .read_to_string(&mut text)
            .expect("read");
        assert_eq!(text, "through");
    }

    #[tokio::test]
    async fn what_is_no_report_is_an_error() {
        let (role, daemon) = StdUnixStream::pair().expect("pair");
        daemon.set_nonblocking(true).expect("nonblocking");
        let mut reports = Reports::new(UnixStream::from_std(daemon).expect("stream"));
        (&role).write_all(b"hello\n").expect("send");
        assert!(reports.next().await.is_err());
    }
}
