//! Digests of files that have not changed since they were computed.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use wisp_config::Config;

use super::run::RunDir;
use crate::digest::{Digest, Hasher};

/// A file that was changed this recently may change once more without a later
/// time of change: file systems count in ticks, the coarsest in seconds.
const TICK: Duration = Duration::from_secs(2);

/// What is known until the next boot of the content of files.
///
/// A file is named by a place that is the caller's to choose; with the same
/// inode, size and times of change, the same place must mean the same content.
#[derive(Debug, Clone)]
pub struct Memo {
    run: RunDir,
}

impl Memo {
    /// The memo in the directory that the settings name.
    pub fn from_config(config: &Config) -> Self {
        Self {
            run: RunDir::new(&config.cache.run_dir),
        }
    }

    /// The digest of the file with this metadata at `place`, if it is known.
    pub fn get(&self, place: &str, metadata: &Metadata) -> Option<Digest> {
        self.run.get(&name(place, metadata))?.parse().ok()
    }

    /// Keeps the digest of `file`, which had the metadata `before` when its
    /// reading began. A file that has just been changed is not kept, nor one
    /// that is changing; nor is it an error if the directory cannot be used.
    pub fn put(&self, place: &str, before: &Metadata, file: &File, digest: &Digest) {
        let Ok(after) = file.metadata() else { return };
        let name = name(place, &after);
        if name == self::name(place, before) && is_settled(&after) {
            let _ = self.run.put(&name, &digest.to_string());
        }
    }
}

fn is_settled(metadata: &Metadata) -> bool {
    let (Ok(seconds), Ok(nanoseconds)) = (
        u64::try_from(metadata.ctime()),
        u32::try_from(metadata.ctime_nsec()),
    ) else {
        return false;
    };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    // A change in the future, by a clock that was wrong, is not settled either.
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age >= TICK)
}

fn name(place: &str, metadata: &Metadata) -> String {
    let mut hasher = Hasher::default();
    hasher.update(place.as_bytes());
    hasher.update(&[0]);
    for number in [metadata.ino(), metadata.size()] {
        hasher.update(&number.to_le_bytes());
    }
    for number in [
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ] {
        hasher.update(&number.to_le_bytes());
    }
    format!("digest-{}", hasher.finish().hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, FileTimes};
    use std::path::Path;

    fn memo(dir: &Path) -> Memo {
        Memo {
            run: RunDir::new(&dir.join("run")),
        }
    }

    /// A file that changed long ago, by the only means there is: waiting.
    fn settled(path: &Path) -> File {
        fs::write(path, "content").expect("write");
        let file = File::open(path).expect("open");
        while !is_settled(&file.metadata().expect("metadata")) {
            std::thread::sleep(Duration::from_millis(50));
        }
        file
    }

    #[test]
    fn the_digest_of_a_file_is_known_until_it_changes() {
        let dir = tempfile::tempdir().expect("dir");
        let memo = memo(dir.path());
        let path = dir.path().join("file");
        let mut file = settled(&path);
        let before = file.metadata().expect("metadata");
        let digest = Digest::of(&mut file).expect("bytes");
        assert_eq!(memo.get("here", &before), None);
        memo.put("here", &before, &file, &digest);
        assert_eq!(memo.get("here", &before), Some(digest));
        assert_eq!(memo.get("there", &before), None);

        // A forger can set all times but that of the change.
        let times = FileTimes::new().set_modified(before.modified().expect("a time"));
        fs::write(&path, "CONTENT").expect("write");
        let writable = File::options().write(true).open(&path).expect("open");
        writable.set_times(times).expect("set times");
        let after = file.metadata().expect("metadata");
        assert_eq!(after.size(), before.size());
        assert_eq!(after.mtime_nsec(), before.mtime_nsec());
        assert_eq!(memo.get("here", &after), None);
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let memo = memo(dir.path());
        let path = dir.path().join("file");
        let mut file = settled(&path);
        let before = file.metadata().expect("metadata");
        let digest = Digest::of(&mut file).expect("bytes");
        fs::write(&path, "content").expect("write");
        memo.put("here", &before, &file, &digest);
        let now = file.metadata().expect("metadata");
        memo.put("here", &now, &file, &digest);
        assert_eq!(memo.get("here", &before), None);
        assert_eq!(memo.get("here", &now), None);
    }
}
