//! Which descriptors the guest's process keeps.

use std::os::fd::{AsRawFd, RawFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// The descriptors this process has open, above the standard streams.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn open() -> Result<Vec<i32>, Errno> {
    let mut dir = Dir::open(
        "/proc/self/fd",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let own = dir.as_raw_fd();
    let mut open = Vec::new();
    for entry in dir.iter() {
        if let Some(number) = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok())
            && number > 2
            && number != own
        {
            open.push(number);
        }
    }
    open.sort_unstable();
    Ok(open)
}

/// Closes every descriptor above the standard streams that is not in `keep`
/// (sorted).
///
/// # Errors
/// On kernels before 5.9, which have no `close_range`.
pub fn close_all_but(keep: &[RawFd]) -> Result<(), Errno> {
    let mut from: libc::c_uint = 3;
    for &kept in keep {
        let kept = kept.unsigned_abs();
        if kept > from {
            close_range(from, kept - 1)?;
        }
        from = kept + 1;
    }
    close_range(from, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the descriptors in this range belong to libcontainer's setup,
    // which this process has left for good: `exec` never returns to it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    Errno::result(result).map(drop)
}
