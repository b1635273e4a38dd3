//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::InstallError;

/// What a file has, or that there is none.
///
/// # Errors
/// The kernel's refusal.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, InstallError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(InstallError::io("read", path)(error)),
    }
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A file beside another, which can take its place in one step. Dropped before
/// that, it is gone.
#[derive(Debug)]
pub struct Staged {
    path: PathBuf,
    target: PathBuf,
    placed: bool,
}

impl Staged {
    /// Writes `bytes` beside `target`, with the mode and the owner of what is
    /// there, else readable by everybody. The disk has it when this returns.
    ///
    /// # Errors
    /// The kernel's refusal; then there is nothing.
    pub fn write(target: &Path, bytes: &[u8]) -> Result<Self, InstallError> {
        let path = beside(target);
        // What an interrupted run has left.
        let _ = fs::remove_file(&path);
        let staged = Self {
            path: path.clone(),
            target: target.to_owned(),
            placed: false,
        };
        let write = || -> io::Result<()> {
            let mut file = File::options().write(true).create_new(true).open(&path)?;
            match fs::metadata(target) {
                Ok(old) => {
                    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
                    chown(&path, Some(old.uid()), Some(old.gid()))?;
                }
                Err(_) => file.set_permissions(fs::Permissions::from_mode(0o644))?,
            }
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(InstallError::io("write", &path))?;
        Ok(staged)
    }

    /// Where it is until it is placed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in the place of its target.
    ///
    /// # Errors
    /// The kernel's refusal; then the target is what it was.
    pub fn place(mut self) -> Result<(), InstallError> {
        fs::rename(&self.path, &self.target).map_err(InstallError::io("replace", &self.target))?;
        self.placed = true;
        sync_dir(&self.target);
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A link in place of another, in one step.
///
/// # Errors
/// The kernel's refusal.
pub fn link(target: &Path, path: &Path) -> Result<(), InstallError> {
    if fs::read_link(path).is_ok_and(|found| found == target) {
        return Ok(());
    }
    let new = beside(path);
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(target, &new)
        .and_then(|()| fs::rename(&new, path))
        .map_err(InstallError::io("link", path))?;
    sync_dir(path);
    Ok(())
}

/// Removes a file; none is fine.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(InstallError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory that only root changes.
///
/// # Errors
/// The kernel's refusal.
pub fn make_dir(path: &Path) -> Result<(), InstallError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(InstallError::io("make", path))
}

/// No pattern such as `*.toml` finds it.
fn beside(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".wisp-new");
    target.with_file_name(name)
}

/// A crash of the machine must not bring the old file back; where a directory
/// cannot be synced, nothing more can be done.
fn sync_dir(path: &Path) {
    if let Some(Ok(dir)) = path.parent().map(File::open) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_has_the_old_ones_mode_and_comes_in_one_step() {
        let dir = tempfile::tempdir().expect("dir");
        let target = dir.path().join("config.toml");
        fs::write(&target, "old").expect("write");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("mode");
        let staged = Staged::write(&target, b"new").expect("staged");
        assert_eq!(fs::read(&target).expect("read"), b"old");
        assert_eq!(fs::read(staged.path()).expect("read"), b"new");
        staged.place().expect("place");
        assert_eq!(fs::read(&target).expect("read"), b"new");
        let mode = fs::metadata(&target).expect("metadata").mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn what_is_not_placed_goes() {
        let dir = tempfile::tempdir().expect("dir");
        drop(Staged::write(&dir.path().join("x"), b"new").expect("staged"));
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 0);
        let error = Staged::write(&dir.path().join("none/x"), b"").expect_err("no directory");
        assert!(error.to_string().contains("none/x"), "{error}");
    }

    #[test]
    fn a_link_changes_in_one_step() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("bin");
        for target in ["a", "b", "b"] {
            link(Path::new(target), &path).expect("link");
            assert_eq!(fs::read_link(&path).expect("link"), Path::new(target));
        }
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn digests_are_the_usual_ones() {
        assert!(digest(b"abc").starts_with("ba7816bf8f01cfea"));
        assert_eq!(digest(b"").len(), 64);
    }
}
