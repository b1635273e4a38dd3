//! The kernel's account of which pages this process has written.
//!
//! Wasmtime's pool asks it what a finished instance has to have put back
//! (`PAGEMAP_SCAN`, Linux 6.7), by a descriptor that it opens once and keeps.
//! After a fork that descriptor still tells of the parent.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// The descriptor by which Wasmtime asks.
pub struct PageMap(RawFd);

impl PageMap {
    /// Finds it among this process's descriptors. Where the kernel has no such
    /// account there is none.
    pub fn find() -> Option<Self> {
        let entries = fs::read_dir("/proc/self/fd").ok()?;
        entries.flatten().find_map(|entry| {
            let is_map = fs::read_link(entry.path())
                .is_ok_and(|target| target.file_name() == Path::new("pagemap").file_name());
            let number = entry.file_name().to_str()?.parse().ok()?;
            is_map.then_some(Self(number))
        })
    }

    /// Makes it tell of this process, a fork of the one in which it was opened.
    ///
    /// # Errors
    /// Those of dup3(2). Where the account cannot be opened, Wasmtime will do
    /// without.
    pub fn renew(&self, proc: BorrowedFd<'_>) -> io::Result<()> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: the path is a C string, and the descriptor is open.
        let opened = unsafe { libc::openat(proc.as_raw_fd(), c"self/pagemap".as_ptr(), flags) };
        let own = match opened {
            // Of a directory nothing can be asked; of the parent it must not be.
            -1 => proc.try_clone_to_owned()?,
            // SAFETY: the kernel has just made this descriptor for us alone.
            opened => unsafe { OwnedFd::from_raw_fd(opened) },
        };
        // SAFETY: replaces a descriptor that Wasmtime keeps open for as long as
        // the process lives, with one that is used in the same way.
        match unsafe { libc::dup3(own.as_raw_fd(), self.0, libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
