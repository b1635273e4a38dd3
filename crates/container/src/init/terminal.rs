//! A process's terminal. Its master goes to the daemon, which copies between
//! it and containerd's FIFOs; its slave is all three streams of the process.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, setsid};
use oci_spec::runtime::Process;

use crate::control::Control;
use crate::error::ContainerError;

/// Where libcontainer delivers the master, in a directory of the caller's.
const SOCKET: &str = "terminal";

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> ContainerError {
    move |error| ContainerError::Init(format!("terminal: {what}: {error}"))
}

/// Makes a terminal of the host for `process`, which will not find it by any
/// path; gives the daemon the master and takes the slave as its own streams.
///
/// # Errors
/// When there are no more terminals.
pub fn open(process: &Process, control: &Control) -> Result<(), ContainerError> {
    let master =
        posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).map_err(failed("open"))?;
    grantpt(&master).map_err(failed("grant"))?;
    unlockpt(&master).map_err(failed("unlock"))?;
    let path = ptsname_r(&master).map_err(failed("name"))?;
    let slave = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(failed("open"))?;
    let owner = Uid::from_raw(process.user().uid());
    fchown(&slave, Some(owner), None::<Gid>).map_err(failed("change its owner"))?;
    set_size(process, &master)?;
    control
        .send_terminal(master)
        .map_err(failed("give to the daemon"))?;
    dup2_stdin(&slave)
        .and_then(|()| dup2_stdout(&slave))
        .and_then(|()| dup2_stderr(&slave))
        .map_err(failed("take as streams"))
}

/// Gives the terminal behind `fd` the size that `process` asks for, if it does
/// (runtime spec, `process.consoleSize`).
///
/// # Errors
/// The kernel's refusal.
pub fn set_size(process: &Process, fd: impl AsFd) -> Result<(), ContainerError> {
    let Some(size) = process.console_size() else {
        return Ok(());
    };
    let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    let size = libc::winsize {
        ws_row: cells(size.height()),
        ws_col: cells(size.width()),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and the size outlives the call.
    let set = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) };
    Errno::result(set).map(drop).map_err(failed("set its size"))
}

/// Makes the terminal that is this process's stdin its controlling one, in a
/// session of its own, so that it gets the signals that keys send. Where stdin
/// is no terminal, only the session is new.
pub fn control() {
    // Who leads a session already cannot make another, and need not.
    let _ = setsid();
    // SAFETY: takes no memory of ours; on what is no terminal it fails.
    unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
}

/// Where libcontainer sends the master of a terminal that it has made inside
/// the container.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in `dir`, which must be there.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn listen(dir: &Path) -> Result<Self, ContainerError> {
        let path = dir.join(SOCKET);
        // An address has room for 107 bytes, which a bundle's path may exceed.
        let back = std::env::current_dir().map_err(failed("find the working directory"))?;
        std::env::set_current_dir(dir).map_err(failed("enter the bundle"))?;
        let _ = std::fs::remove_file(SOCKET);
        let bound = UnixListener::bind(SOCKET);
        std::env::set_current_dir(back).map_err(failed("leave the bundle"))?;
        let listener = bound.map_err(failed("listen"))?;
        // libcontainer has connected and sent before it answers.
        listener.set_nonblocking(true).map_err(failed("listen"))?;
        Ok(Self { listener, path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands the master that has come to the daemon.
    ///
    /// # Errors
    /// When none has come.
    pub fn forward(self, control: &Control) -> Result<(), ContainerError> {
        let (stream, _) = self.listener.accept().map_err(failed("receive"))?;
        let _ = std::fs::remove_file(&self.path);
        let master = receive(stream.as_raw_fd()).map_err(failed("receive"))?;
        control
            .send_terminal(master)
            .map_err(failed("give to the daemon"))
    }
}

fn receive(fd: RawFd) -> io::Result<OwnedFd> {
    let mut byte = [0; 64];
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(fd, &mut slices, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control
            && let Some(number) = received.first()
        {
            // SAFETY: the kernel has just made this descriptor for us alone;
            // one descriptor is all there is room for.
            return Ok(unsafe { OwnedFd::from_raw_fd(*number) });
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}
