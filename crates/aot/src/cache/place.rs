//! One file of code: opened with its checks, stored whole or not at all.

use std::fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Artifact, Cache, Lane, joined, owner, trailer};
use crate::key::Key;
use trailer::Damage;

/// A use is recorded if the last record is this old.
const USES: Duration = Duration::from_secs(60);

/// What is in the place of some code.
pub(super) enum Opened {
    Usable(Usable),
    Missing,
    /// Not the code, or not only ours: to be removed.
    Unfit(Damage),
    /// The directory itself cannot be used.
    Unusable(io::Error),
}

/// Code that may be mapped.
pub(super) struct Usable {
    file: File,
    warning: Option<String>,
}

impl Usable {
    pub(super) fn into_artifact(self, cached: bool, damage: Option<String>) -> Artifact {
        let warning = match self.warning {
            Some(warning) => Some(joined(damage, warning)),
            None => damage,
        };
        Artifact {
            file: self.file,
            cached,
            warning,
        }
    }
}

impl Cache {
    /// Opens the code of `key` if it can only be our own and is undamaged.
    pub(super) fn open(&self, key: &Key) -> Opened {
        match fs::metadata(&self.dir) {
            Ok(metadata) => {
                if let Err(error) = owner::check_dir(&metadata) {
                    return Opened::Unusable(error);
                }
            }
            // It may only have to be made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Opened::Missing,
            Err(error) => return Opened::Unusable(error),
        }
        let file = match open_file(&self.code_path(key)) {
            Ok(file) => file,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound => Opened::Missing,
                    io::ErrorKind::PermissionDenied => Opened::Unusable(error),
                    _ => Opened::Unfit(error.into()),
                };
            }
        };
        // From here on it is in use. Only who is about to remove it has it
        // locked: then it is removed, and stays mapped all the same.
        let _ = file.try_lock_shared();
        match self.checked(&file, key) {
            Ok(warning) => Opened::Usable(Usable { file, warning }),
            Err(damage) => Opened::Unfit(damage),
        }
    }

    /// Checks a file that is to be mapped. Its content is read the first time
    /// after each boot and whenever the file has changed since.
    fn checked(&self, file: &File, key: &Key) -> Result<Option<String>, Damage> {
        let metadata = file.metadata()?;
        check_file(&metadata)?;
        let mut warning = None;
        let fact = identity(&metadata);
        if self.run.get(&name(&metadata)).as_deref() != Some(&fact) {
            trailer::verify(file, key)?;
            warning = self.know(&metadata).err().map(|error| {
                format!(
                    "compiled programs are checked at each start: {}: {error}; cache.run_dir in \
                     the settings names another directory",
                    self.run.dir().display()
                )
            });
        }
        self.record_use(file, &metadata);
        Ok(warning)
    }

    /// Remembers that the file with this metadata is undamaged.
    fn know(&self, metadata: &Metadata) -> io::Result<()> {
        self.run.put(&name(metadata), &identity(metadata))
    }

    /// Forgets a file that is gone.
    pub(super) fn forget(&self, metadata: &Metadata) {
        self.run.forget(&name(metadata));
    }

    /// Keeps the time of the last use as the file's time of access, which the
    /// kernel, by its mount options, may keep rarely or never.
    fn record_use(&self, file: &File, metadata: &Metadata) {
        let now = SystemTime::now();
        let is_recent = metadata.accessed().is_ok_and(|last| {
            // In the future, by a clock that was wrong, is not recent either.
            now.duration_since(last)
                .unwrap_or_else(|error| error.duration())
                < USES
        });
        if is_recent || file.set_times(FileTimes::new().set_accessed(now)).is_err() {
            return;
        }
        // That was a change of the file, too, but of nothing that was checked.
        if let Ok(after) = file.metadata()
            && content(&after) == content(metadata)
        {
            // At worst it is checked once more.
            let _ = self.know(&after);
        }
    }

    /// Gives compiled code its place. Whoever looks there finds all of it or
    /// nothing. The caller holds the lock.
    ///
    /// # Errors
    /// Those of the directory; then nothing is left in it.
    pub(super) fn store(&self, key: &Key, code: &File, program_size: u64) -> io::Result<Usable> {
        let temporary = self.temporary_path(self.lane, key);
        let path = self.code_path(key);
        // Of a process that was killed. Nobody else holds the lock now.
        remove_if_there(&temporary)?;
        let stored = self.write(&temporary, &path, key, code, program_size);
        if stored.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        stored?;
        match self.open(key) {
            // Opened anew, so that nothing that runs can write to it.
            Opened::Usable(usable) => Ok(usable),
            Opened::Missing => Err(io::ErrorKind::NotFound.into()),
            Opened::Unfit(damage) => Err(io::Error::other(damage)),
            Opened::Unusable(error) => Err(error),
        }
    }

    fn write(
        &self,
        temporary: &Path,
        path: &Path,
        key: &Key,
        code: &File,
        program_size: u64,
    ) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC)
            .open(temporary)?;
        trailer::write(code, &file, key, program_size)?;
        file.set_permissions(Permissions::from_mode(0o400))?;
        // The name must not survive a power failure that its bytes do not.
        file.sync_data()?;
        match self.lane {
            Lane::Now => fs::rename(temporary, path)?,
            Lane::Ahead => {
                // Somebody who could not wait may have been faster. His is in
                // use, and there should be one copy in memory.
                match fs::hard_link(temporary, path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => fs::remove_file(temporary)?,
                }
            }
        }
        // Its content is what was summed up just now.
        if let Ok(metadata) = file.metadata() {
            let _ = self.know(&metadata);
        }
        Ok(())
    }
}

/// Opens what is at `path`, to look at it.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        // Never follows a link, never waits for the other end of a FIFO.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

/// Whether it is a file that nobody else can have written.
pub(super) fn check_file(metadata: &Metadata) -> Result<(), Damage> {
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file").into());
    }
    owner::check(metadata, "it")?;
    Ok(())
}

/// The name of what is known of a file.
fn name(metadata: &Metadata) -> String {
    format!("checked-{:x}-{:x}", metadata.dev(), metadata.ino())
}

/// What changes whenever anything about a file does.
fn identity(metadata: &Metadata) -> String {
    format!(
        "{} {}.{} {}.{}",
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

/// What changes whenever a file's content does.
fn content(metadata: &Metadata) -> (u64, u64, i64, i64) {
    (
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
