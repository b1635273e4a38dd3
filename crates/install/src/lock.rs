//! One installer at a time.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::InstallError;
use crate::files;

/// Held by whoever changes the node; gone with its process, whatever ends it.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock of the state directory `state`, which is made.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn take(state: &Path) -> Result<Self, InstallError> {
        files::make_dir(state)?;
        let path = state.join("lock");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(InstallError::io("open", &path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(locked) => return Ok(Self { _file: locked }),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, errno)) => return Err(InstallError::io("lock", &path)(errno.into())),
            }
        }
    }
}
