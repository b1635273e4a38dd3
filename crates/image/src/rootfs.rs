//! Files of a container's root file system, seen as from inside it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::ImageError;

/// A container's root directory. Whatever link is followed, it stays inside.
#[derive(Debug)]
pub struct Rootfs {
    dir: OwnedFd,
}

/// A file in a [`Rootfs`] that was found but not opened: opening a FIFO or a
/// device of an image has effects.
pub(crate) struct Found {
    handle: OwnedFd,
    status: FileStat,
}

impl Rootfs {
    /// Opens the root directory at `path` on the host.
    ///
    /// # Errors
    /// When it is not there or not a directory.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(dir) => Ok(Self { dir }),
            Err(errno) => Err(ImageError::Rootfs {
                path: path.display().to_string(),
                reason: errno.into(),
            }),
        }
    }

    /// Looks for `path` as a process inside would find it.
    pub(crate) fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            match openat2(&self.dir, path, how) {
                Ok(handle) => {
                    let status = fstat(&handle)?;
                    return Ok(Some(Found { handle, status }));
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                // The kernel could not rule out that a rename elsewhere made
                // `..` leave the root.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Found {
    pub(crate) fn is_file(&self) -> bool {
        self.kind() == SFlag::S_IFREG
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == SFlag::S_IFDIR
    }

    /// Whether anybody may execute it.
    pub(crate) fn is_executable(&self) -> bool {
        self.status.st_mode & 0o111 != 0
    }

    fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.status.st_mode & SFlag::S_IFMT.bits())
    }

    /// Opens the very file that was found.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }
}
