//! What is in the directory, for who looks after it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::place::{check_file, open_file};
use super::trailer::{self, Damage, Trailer};
use super::{Cache, Lane, Lock, owner};
use crate::key::Key;

/// One file of code.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is the code of.
    pub key: Key,
    pub path: PathBuf,
    /// Of the whole file, in bytes.
    pub size: u64,
    /// When a start last used it, or it was stored, to the minute.
    pub last_used: SystemTime,
    metadata: Metadata,
}

impl Entry {
    /// Whether this wisp on this processor would use it.
    pub fn is_current(&self) -> bool {
        Key::new(self.key.program()) == self.key
    }

    /// What the file says of itself. Only its end is read.
    ///
    /// # Errors
    /// A file that cannot be read or is obviously damaged.
    pub fn trailer(&self) -> Result<Trailer, Damage> {
        let file = look(&self.path)?;
        let metadata = file.metadata()?;
        check_file(&metadata)?;
        Trailer::read(&file, metadata.len())
    }

    /// Reads the whole file and checks it, its owner and its mode.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self) -> Result<Trailer, Damage> {
        let file = look(&self.path)?;
        check_file(&file.metadata()?)?;
        trailer::verify(&file, &self.key)
    }

    /// Whether a process has it open to run it.
    pub fn is_in_use(&self) -> bool {
        // Let go of again as the file is closed.
        look(&self.path).is_ok_and(|file| file.try_lock().is_err())
    }

    /// How long ago it was last used.
    pub fn unused_for(&self, now: SystemTime) -> Duration {
        now.duration_since(self.last_used).unwrap_or_default()
    }
}

impl Cache {
    /// All code that is kept, whatever wisp and processor it is for, least
    /// recently used first. None if there is no directory yet. Files with
    /// other names are nobody's and are not looked at.
    ///
    /// # Errors
    /// A directory that cannot be read, or that others can write to.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        owner::check_dir(&fs::metadata(&self.dir)?)?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(key) = name.to_str().and_then(Key::of_file) else {
                continue;
            };
            let metadata = match entry.metadata() {
                // Removed by somebody else in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            found.push(Entry {
                key,
                path: entry.path(),
                size: metadata.len(),
                last_used: last_used(&metadata),
                metadata,
            });
        }
        found.sort_by(|a, b| (a.last_used, &a.path).cmp(&(b.last_used, &b.path)));
        Ok(found)
    }

    /// Removes a file of code. Says whether it did: it does not if somebody is
    /// making it at this moment or has replaced it, nor, unless `even_in_use`,
    /// if a process runs it.
    pub fn remove_entry(&self, entry: &Entry, even_in_use: bool) -> bool {
        let Ok(Some(_lock)) = Lock::try_take(&self.lock_path(Lane::Now, &entry.key)) else {
            return false;
        };
        // What is no file is not in use. Who opens it while it is locked here
        // finds that out and runs it all the same: the file stays until then.
        let locked = open_file(&entry.path);
        if let Ok(file) = &locked
            && file.try_lock().is_err()
            && !even_in_use
        {
            return false;
        }
        self.remove_if_same(&entry.path, &entry.metadata)
    }
}

/// When a file was last used. A start records it as the time of access; if the
/// file was never used, that is the time at which it was made.
fn last_used(metadata: &Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.atime()).unwrap_or_default();
    let nanoseconds = u32::try_from(metadata.atime_nsec()).unwrap_or_default();
    let accessed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    metadata
        .modified()
        .map_or(accessed, |modified| modified.max(accessed))
}

/// Opens a file without that counting as a use of it.
fn look(path: &Path) -> io::Result<File> {
    let quietly = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOATIME)
        .open(path);
    match quietly {
        // Only the owner may do so.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open_file(path),
        result => result,
    }
}
