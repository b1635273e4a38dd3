//! What is known until the next boot: small facts in a directory under `/run`.
//!
//! A fact is a symbolic link whose target is its text, so that looking one up
//! is a single system call and it is there whole or not at all. Each begins
//! with the id of the boot: a directory that outlives the boot does no harm.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::owner;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The directory of facts.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    dir: PathBuf,
    boot: OnceLock<String>,
}

impl RunDir {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            boot: OnceLock::new(),
        }
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The fact called `name`, if it is known and can only be our own.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.dir.join(name)).ok()?;
        owner::check_dir(&fs::symlink_metadata(&self.dir).ok()?).ok()?;
        let text = target.to_str()?.strip_prefix(self.boot().ok()?)?;
        Some(text.strip_prefix(' ')?.into())
    }

    /// Keeps a fact, in place of an earlier one.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let boot = self.boot()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        owner::check_dir(&fs::symlink_metadata(&self.dir)?)?;
        let path = self.dir.join(name);
        let target = format!("{boot} {text}");
        match symlink(&target, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
        fs::remove_file(&path)?;
        match symlink(&target, &path) {
            // Somebody else was faster, and knows as much.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Forgets a fact.
    pub(crate) fn forget(&self, name: &str) {
        // One that stays says nothing of another file, and is gone at boot.
        let _ = fs::remove_file(self.dir.join(name));
    }

    /// Forgets all facts of earlier boots.
    pub(crate) fn tidy(&self) {
        let (Ok(boot), Ok(entries)) = (self.boot(), fs::read_dir(&self.dir)) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let old = fs::read_link(&path)
                .is_ok_and(|target| !target.as_os_str().as_bytes().starts_with(boot.as_bytes()));
            if old {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn boot(&self) -> io::Result<&str> {
        if let Some(boot) = self.boot.get() {
            return Ok(boot);
        }
        let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
        Ok(self.boot.get_or_init(|| boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_put_is_there() {
        let dir = tempfile::tempdir().expect("dir");
        let run = RunDir::new(&dir.path().join("a/b"));
        assert_eq!(run.get("x"), None);
        for text in ["one", "two words"] {
            run.put("x", text).expect("put");
            assert_eq!(run.get("x").as_deref(), Some(text));
        }
        run.forget("x");
        assert_eq!(run.get("x"), None);
    }

    #[test]
    fn facts_of_another_boot_do_not_count() {
        let dir = tempfile::tempdir().expect("dir");
        let run = RunDir::new(dir.path());
        symlink("an-earlier-boot text", dir.path().join("x")).expect("link");
        assert_eq!(run.get("x"), None);
        run.put("y", "text").expect("put");
        run.tidy();
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
        assert_eq!(run.get("y").as_deref(), Some("text"));
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_believed() {
        let dir = tempfile::tempdir().expect("dir");
        let run = RunDir::new(dir.path());
        run.put("x", "text").expect("put");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("chmod");
        assert_eq!(run.get("x"), None);
        assert!(run.put("y", "text").is_err());
    }
}
