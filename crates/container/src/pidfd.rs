//! Processes by descriptor, which unlike a number never means another one.

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pidfd of `pid`: of the process meant, if that is a child of this process
/// that has not been waited for.
///
/// # Errors
/// The kernel's: no such process, or no more descriptors.
pub fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes plain integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = libc::c_int::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the process has not ended. Then its number has meant it up to now.
///
/// # Errors
/// When the descriptor cannot be looked at.
pub fn is_alive(pidfd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(pidfd, PollFlags::POLLIN)];
    Ok(poll(&mut polled, PollTimeout::ZERO)? == 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_that_has_ended_is_not_alive() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("spawn");
        let pidfd = open(i32::try_from(child.id()).expect("pid")).expect("pidfd");
        assert_eq!(is_alive(pidfd.as_fd()), Ok(true));
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(is_alive(pidfd.as_fd()), Ok(false));
    }
}
