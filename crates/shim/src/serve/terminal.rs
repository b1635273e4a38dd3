//! A process's terminal in the daemon: bytes go between its master and
//! containerd's FIFOs here, since a terminal has two ends and a FIFO is neither.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use log::{debug, warn};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::task::{AbortHandle, JoinHandle};

/// What is copied at a time: as much as a terminal holds.
const CHUNK: usize = 4096;
/// How long the last output may take to reach a reader that is slow.
const PATIENCE: Duration = Duration::from_secs(2);

/// The daemon's end of a terminal.
#[derive(Debug)]
pub struct Terminal {
    master: Arc<End>,
    output: JoinHandle<()>,
    input: Option<AbortHandle>,
}

impl Terminal {
    /// Copies from `input`, if there is one, to the terminal and from it to
    /// `output`, until the last process that has it open is gone.
    ///
    /// # Errors
    /// When one of them cannot be waited for.
    pub fn connect(
        master: OwnedFd,
        input: Option<OwnedFd>,
        output: OwnedFd,
    ) -> anyhow::Result<Self> {
        let master = Arc::new(End::new(master).context("terminal")?);
        let output = End::new(output).context("stdout")?;
        let input = match input {
            Some(input) => {
                let input = End::new(input).context("stdin")?;
                let to = master.clone();
                let copying = tokio::spawn(async move { copy(&input, &to, "terminal").await });
                Some(copying.abort_handle())
            }
            None => None,
        };
        let from = master.clone();
        let typing = input.clone();
        let output = tokio::spawn(async move {
            copy(&from, &output, "stdout").await;
            // Nobody is left who could read.
            if let Some(typing) = typing {
                typing.abort();
            }
        });
        Ok(Self {
            master,
            output,
            input,
        })
    }

    /// Says how large the window is.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn resize(&self, width: u32, height: u32) -> io::Result<()> {
        let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let size = libc::winsize {
            ws_row: cells(height),
            ws_col: cells(width),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open and the size outlives the call.
        let set = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        Ok(Errno::result(set).map(drop)?)
    }

    /// Gives the last output a while to get through, and lets go.
    pub async fn close(mut self) {
        if tokio::time::timeout(PATIENCE, &mut self.output)
            .await
            .is_err()
        {
            debug!("the terminal's last output is not taken");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.output.abort();
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

/// One end of a copy: a pipe, a terminal or a file.
#[derive(Debug)]
enum End {
    Waits(AsyncFd<OwnedFd>),
    /// Regular files are always ready, and cannot be waited for.
    File(OwnedFd),
}

impl End {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: an owned descriptor is open, and answers its one number, for
        // as long as it lives.
        match unsafe { AsyncFd::register(fd) } {
            Ok(waits) => Ok(Self::Waits(waits)),
            Err(error) => {
                let (fd, cause) = error.into_parts();
                match cause.raw_os_error() {
                    Some(libc::EPERM) => Ok(Self::File(fd)),
                    _ => Err(cause),
                }
            }
        }
    }

    fn as_raw_fd(&self) -> i32 {
        self.fd().as_raw_fd()
    }

    fn fd(&self) -> &OwnedFd {
        match self {
            Self::Waits(fd) => fd.get_ref(),
            Self::File(fd) => fd,
        }
    }

    async fn until_done<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(&OwnedFd) -> Result<T, Errno>,
    ) -> io::Result<T> {
        loop {
            match call(self.fd()) {
                Ok(done) => return Ok(done),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => match self {
                    Self::Waits(fd) => {
                        let mut ready = fd.ready(interest).await?;
                        // What was ready when it was called is so no more.
                        match call(self.fd()) {
                            Ok(done) => return Ok(done),
                            // A terminal that nobody has open takes nothing, ever.
                            Err(Errno::EAGAIN) if ready.ready().is_write_closed() => {
                                return Err(Errno::EIO.into());
                            }
                            Err(Errno::EAGAIN) if interest.is_readable() => {
                                ready.clear_ready_matching(Ready::READABLE);
                            }
                            Err(Errno::EAGAIN) => ready.clear_ready_matching(Ready::WRITABLE),
                            Err(Errno::EINTR) => {}
                            Err(errno) => return Err(errno.into()),
                        }
                    }
                    Self::File(_) => return Err(Errno::EAGAIN.into()),
                },
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The number of bytes read; 0 at the end.
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self
            .until_done(Interest::READABLE, |fd| read(fd.as_fd(), buffer))
            .await;
        match read {
            // A master whose last slave is closed.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self
                .until_done(Interest::WRITABLE, |fd| write(fd.as_fd(), bytes))
                .await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

async fn copy(from: &End, to: &End, name: &str) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let copied = match from.read(&mut buffer).await {
            Ok(0) => return,
            Ok(length) => to.write_all(&buffer[..length]).await,
            Err(error) => Err(error),
        };
        match copied {
            Ok(()) => {}
            // The process has gone while its input was on the way.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return,
            Err(error) => return warn!("copy to {name}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::pty::openpty;
    use nix::unistd::pipe;

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_until_the_last_slave_is_closed() {
        let pty = openpty(None, None).expect("pty");
        let (input, to_terminal) = pipe().expect("pipe");
        let (from_terminal, output) = pipe().expect("pipe");
        let terminal = Terminal::connect(pty.master, Some(input), output).expect("connect");
        std::fs::File::from(to_terminal)
            .write_all(b"typed\n")
            .expect("type");
        let mut slave = std::fs::File::from(pty.slave);
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = [0; 6];
            slave.read_exact(&mut line).expect("read");
            slave.write_all(b"answered\n").expect("write");
            line
        });
        assert_eq!(&reading.await.expect("join"), b"typed\n");
        terminal.close().await;
        let mut seen = String::new();
        std::fs::File::from(from_terminal)
            .read_to_string(&mut seen)
            .expect("read to the end");
        // The terminal echoes, and ends lines as terminals do.
        assert_eq!(seen, "typed\r\nanswered\r\n");
    }

    #[tokio::test]
    async fn output_may_go_to_a_file() {
        let pty = openpty(None, None).expect("pty");
        let file = tempfile::NamedTempFile::new().expect("file");
        let output = file.reopen().expect("open").into();
        let terminal = Terminal::connect(pty.master, None, output).expect("connect");
        std::fs::File::from(pty.slave)
            .write_all(b"kept")
            .expect("write");
        terminal.close().await;
        assert_eq!(std::fs::read_to_string(file.path()).expect("read"), "kept");
    }

    #[tokio::test]
    async fn a_window_has_the_size_it_is_given() {
        let pty = openpty(None, None).expect("pty");
        let (_from_terminal, output) = pipe().expect("pipe");
        let terminal = Terminal::connect(pty.master, None, output).expect("connect");
        terminal.resize(132, 43).expect("resize");
        // SAFETY: all-zero is a valid size, and it outlives the call.
        let size = unsafe {
            let mut size: libc::winsize = std::mem::zeroed();
            libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCGWINSZ, &mut size);
            size
        };
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
    }
}
