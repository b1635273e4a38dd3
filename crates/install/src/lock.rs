//! One installer at a time.

use std::fs::{self, File};
use std::io::ErrorKind::{AlreadyExists, NotFound};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::InstallError;
use crate::files;

/// The lock's file in the state directory.
pub const FILE: &str = "lock";
/// How often its directory may go between making and opening it.
const TRIES: u32 = 1000;

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
        let path = state.join(FILE);
        let mut tries = 0;
        loop {
            let opened = files::make_dir(state).and_then(|()| {
                File::options()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&path)
                    .map_err(InstallError::io("open", &path))
            });
            match opened {
                Ok(file) => {
                    let locked = lock(file, &path)?;
                    if is_at(&locked, &path) {
                        return Ok(Self { _file: locked });
                    }
                }
                // Whoever held it has just taken the directory with it: before the
                // file was made, or when the directory was found to be there.
                Err(InstallError::Io { source, .. })
                    if matches!(source.kind(), NotFound | AlreadyExists) && tries < TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until nobody else changes the node with the state directory `state`:
/// meanwhile containerd may be away. Makes nothing.
///
/// # Errors
/// When the lock cannot be opened.
pub fn wait_for_others(state: &Path) -> Result<(), InstallError> {
    let path = state.join(FILE);
    match File::open(&path) {
        Ok(file) => lock(file, &path).map(drop),
        Err(error) if error.kind() == NotFound => Ok(()),
        Err(error) => Err(InstallError::io("open", &path)(error)),
    }
}

fn lock(mut file: File, path: &Path) -> Result<Flock<File>, InstallError> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(locked) => return Ok(locked),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(InstallError::io("lock", path)(errno.into())),
        }
    }
}

/// Whether the file is still there under its name: the one before removes it with
/// everything else, and then another may be there.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn one_holds_it_also_while_its_file_comes_and_goes() {
        let dir = tempfile::tempdir().expect("dir");
        let state = dir.path().join("state");
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let held = Lock::take(&state).expect("lock");
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        // As the last one does, as its last step: from here on
                        // the next may make its own.
                        fs::remove_file(state.join(FILE)).expect("remove");
                        let _ = fs::remove_dir(&state);
                        drop(held);
                        wait_for_others(&state).expect("wait");
                    }
                });
            }
        });
        assert!(!state.exists());
    }
}
