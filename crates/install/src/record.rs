//! What was brought to the node: enough to take it away again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::change::How;
use crate::error::InstallError;
use crate::files::{self, Staged};

/// The record's file in the state directory.
const FILE: &str = "record.json";
/// The file with what was in the place of the changed one.
const ORIGINAL: &str = "original";

/// What was brought, written before it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The version that was installed last.
    pub version: String,
    /// The directory of the programs.
    pub programs: PathBuf,
    /// What was changed of containerd's configuration.
    pub change: Option<Changed>,
    /// Whether all of it was proven to work.
    pub proven: bool,
    /// What was proven before, while something newer is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// Programs that were proven to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Their version.
    pub version: String,
    /// Their directory in that of all programs.
    pub build: PathBuf,
}

/// A file of containerd's configuration that is ours or has something of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// The file.
    pub file: PathBuf,
    /// What was done with it.
    pub how: How,
    /// The SHA-256 of what was there before, `None` for no file.
    pub before: Option<String>,
    /// The SHA-256 of what was put there.
    pub after: String,
}

/// The directory of the record.
#[derive(Debug)]
pub struct Records<'a>(pub &'a Path);

impl Records<'_> {
    /// What was recorded last, if anything.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn load(&self) -> Result<Option<Record>, InstallError> {
        let path = self.0.join(FILE);
        let Some(bytes) = files::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| InstallError::Record {
                path,
                reason: error.to_string(),
            })
    }

    /// Records.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn save(&self, record: &Record) -> Result<(), InstallError> {
        let path = self.0.join(FILE);
        let text = serde_json::to_vec_pretty(record).map_err(|error| InstallError::Record {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Staged::write(&path, &text)?.place()
    }

    /// Keeps what is to be replaced.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn keep(&self, original: &[u8]) -> Result<(), InstallError> {
        Staged::write(&self.0.join(ORIGINAL), original)?.place()
    }

    /// What was replaced by `changed`: the file's bytes, or that there was none.
    ///
    /// # Errors
    /// When it was not kept as it was.
    pub fn original(&self, changed: &Changed) -> Result<Option<Vec<u8>>, InstallError> {
        let Some(digest) = &changed.before else {
            return Ok(None);
        };
        let path = self.0.join(ORIGINAL);
        let bytes = files::read(&path)?.unwrap_or_default();
        if files::digest(&bytes) != *digest {
            return Err(InstallError::Record {
                path,
                reason: format!("is not what {} was", changed.file.display()),
            });
        }
        Ok(Some(bytes))
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn forget(&self) -> Result<(), InstallError> {
        files::remove(&self.0.join(FILE))?;
        files::remove(&self.0.join(ORIGINAL))?;
        files::remove(&self.0.join(crate::lock::FILE))?;
        // Only if nobody else put anything there.
        let _ = std::fs::remove_dir(self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_and_what_is_damaged_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let records = Records(dir.path());
        assert_eq!(records.load().expect("none"), None);
        let changed = Changed {
            file: "/etc/containerd/config.toml".into(),
            how: How::Edit,
            before: Some(files::digest(b"old")),
            after: files::digest(b"new"),
        };
        let record = Record {
            version: "1.2.3".into(),
            programs: "/opt/wisp".into(),
            change: Some(changed.clone()),
            proven: true,
            fallback: None,
        };
        records.save(&record).expect("save");
        assert_eq!(records.load().expect("load"), Some(record));
        assert!(records.original(&changed).is_err());
        records.keep(b"old").expect("keep");
        assert_eq!(
            records.original(&changed).expect("kept"),
            Some(b"old".to_vec())
        );
        std::fs::write(dir.path().join(FILE), "{\"version\": 1").expect("write");
        let error = records.load().expect_err("damaged").to_string();
        assert!(error.contains("record.json"), "{error}");
        records.forget().expect("forget");
        assert!(!dir.path().exists());
    }
}
