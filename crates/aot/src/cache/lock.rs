//! One process at a time per program: a file that is locked while it compiles.
//!
//! The file exists for as long as somebody holds it. Who holds it removes its
//! name before letting go; a process that is killed lets go without that, and
//! the next one finds the name and holds it. Nobody else removes the name, so
//! whoever holds the file that the name leads to is alone.
//!
//! The file also carries what the others, who wait, are to be told. Its room is
//! taken before anything is compiled: a full disk is noticed then.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Room for what the others are told, in bytes.
const ROOM: usize = 8 * 1024;
const FAILED: u8 = b'F';
const NOT_KEPT: u8 = b'N';
/// How long the first and the longest rest are between two looks.
const RESTS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));

/// The right to compile a program, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// What the process that held a lock has left to those who waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: look for the code, else try again.
    Done,
    /// Why the program cannot be compiled.
    Failed(String),
    /// The directory cannot keep the code: each must compile for itself.
    NotKept,
}

/// What waiting for a lock came to.
#[derive(Debug)]
pub(super) enum Waited {
    Ours(Lock),
    Others(Outcome),
    TimedOut,
}

impl Lock {
    /// Takes the lock at `path`, or waits until `deadline` for whoever has it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn wait(path: &Path, deadline: Instant) -> io::Result<Waited> {
        let mut rest = RESTS.0;
        let file = open(path)?;
        loop {
            match file.try_lock() {
                Ok(()) if is_at(&file, path) => return Ok(Waited::Ours(Self::held(file, path))),
                Ok(()) => return Ok(Waited::Others(outcome(&file))),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever holds it removes the name first, and all is said then.
            if file.metadata()?.nlink() == 0 {
                return Ok(Waited::Others(outcome(&file)));
            }
            if Instant::now() >= deadline {
                return Ok(Waited::TimedOut);
            }
            std::thread::sleep(rest);
            rest = (rest * 2).min(RESTS.1);
        }
    }

    /// Takes the lock at `path` if nobody has it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => Ok(Some(Self::held(file, path))),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn held(file: File, path: &Path) -> Self {
        Self {
            file,
            path: path.into(),
        }
    }

    /// Takes the room for [`Self::tell`], and takes back what a process said
    /// that was killed before it let go.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn reserve(&self) -> io::Result<()> {
        self.file.write_all_at(&[0; ROOM], 0)
    }

    /// Says what those who wait are to know.
    pub(super) fn tell(&self, outcome: &Outcome) {
        let (kind, text) = match outcome {
            Outcome::Done => return,
            Outcome::Failed(text) => (FAILED, text.as_str()),
            Outcome::NotKept => (NOT_KEPT, ""),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(ROOM - 1)]);
        // Who is told nothing finds out alone.
        let _ = self.file.write_all_at(&bytes, 0);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A name that stays belongs to nobody; the next one takes it.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

/// Whether `path` leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => (file.dev(), file.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn outcome(file: &File) -> Outcome {
    let mut bytes = [0; ROOM];
    let read = file.read_at(&mut bytes, 0).unwrap_or_default();
    match bytes[..read].split_first() {
        Some((&FAILED, text)) => {
            let length = text.iter().position(|byte| *byte == 0);
            let text = &text[..length.unwrap_or(text.len())];
            Outcome::Failed(String::from_utf8_lossy(text).into_owned())
        }
        Some((&NOT_KEPT, _)) => Outcome::NotKept,
        _ => Outcome::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn take(path: &Path) -> Lock {
        match Lock::wait(path, soon()).expect("a file") {
            Waited::Ours(lock) => lock,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_holds_it_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("lock");
        let lock = take(&path);
        assert!(Lock::try_take(&path).expect("a file").is_none());
        let waited = Lock::wait(&path, soon()).expect("a file");
        assert!(matches!(waited, Waited::TimedOut), "{waited:?}");
        drop(lock);
        assert!(!path.exists());
        drop(take(&path));
    }

    #[test]
    fn the_name_of_a_killed_holder_does_not_block() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("lock");
        fs::write(&path, "Fits last words").expect("write");
        let lock = take(&path);
        lock.reserve().expect("room");
        assert_eq!(outcome(&lock.file), Outcome::Done);
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn who_waits_is_told_what_became_of_it() {
        let long = "é".repeat(ROOM);
        let shortened = "é".repeat((ROOM - 1) / 2);
        for (outcome, heard) in [
            (Outcome::Done, Outcome::Done),
            (Outcome::NotKept, Outcome::NotKept),
            (Outcome::Failed("bad".into()), Outcome::Failed("bad".into())),
            (Outcome::Failed(long), Outcome::Failed(shortened)),
        ] {
            let dir = tempfile::tempdir().expect("dir");
            let path = dir.path().join("lock");
            let lock = take(&path);
            lock.reserve().expect("room");
            let waiting = std::thread::spawn({
                let path = path.clone();
                move || Lock::wait(&path, Instant::now() + Duration::from_secs(60))
            });
            // It may also come too late to wait; then it holds the next lock.
            std::thread::sleep(Duration::from_millis(50));
            lock.tell(&outcome);
            drop(lock);
            match waiting.join().expect("no panic").expect("a file") {
                Waited::Others(found) => assert_eq!(found, heard),
                Waited::Ours(_) => {}
                Waited::TimedOut => panic!("a minute is long"),
            }
        }
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).expect("link");
        assert!(Lock::try_take(&path).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
