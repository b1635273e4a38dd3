//! Dying with the process that wants the code.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

use super::{Missing, missing};

/// Who has started this process.
pub(super) struct Parent(Pid);

impl Parent {
    /// The one of now.
    pub(super) fn now() -> Self {
        Self(getppid())
    }

    /// From here on this process is killed when its parent ends.
    pub(super) fn die_with(&self) -> Result<(), Missing> {
        arm()?;
        if getppid() == self.0 {
            return Ok(());
        }
        Err(missing("stay with the process that started it")(
            Errno::ESRCH,
        ))
    }
}

/// Has the kernel kill this process when its parent ends; fails if nobody
/// listens to stderr any more, which is how a parent shows that has ended
/// before.
pub(super) fn arm() -> Result<(), Missing> {
    const STEP: &str = "end with the process that started it";
    set_pdeathsig(Signal::SIGKILL).map_err(missing(STEP))?;
    if nobody_listens(2).map_err(missing(STEP))? {
        return Err(missing(STEP)(Errno::EPIPE));
    }
    Ok(())
}

/// Whether descriptor `fd` is a pipe without a reader.
fn nobody_listens(fd: i32) -> io::Result<bool> {
    // SAFETY: only borrowed for this call, which copes with a closed number.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut polled = [PollFd::new(fd, PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO)?;
    Ok(polled[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLERR)))
}
