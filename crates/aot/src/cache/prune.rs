//! Keeping the directory small and clean.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use super::{Cache, Entry, LOCK, Lane, Lock, TEMPORARY};
use crate::key::Key;

/// A leftover of a wisp that named its files in another way is removed when it
/// is this old: nobody compiles for so long.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The least recently used, until all files together have at most so many
    /// bytes.
    pub max_size: Option<u64>,
    /// What has not been used for so long.
    pub older_than: Option<Duration>,
    /// What another wisp or processor needs and has not used for so long.
    pub other_versions: Option<Duration>,
    /// Everything.
    pub all: bool,
}

/// What [`Cache::prune`] did.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What is gone, or with `dry_run` would be.
    pub removed: Vec<Entry>,
    /// What would have gone, were it not in use.
    pub in_use: Vec<Entry>,
    /// How many files are left, in use or not.
    pub left: usize,
    /// How many bytes those have.
    pub left_size: u64,
}

impl Cache {
    /// Removes what exceeds `limits` and what killed processes left. Code that
    /// a process runs stays: its pages are shared with the next start.
    ///
    /// # Errors
    /// A directory that cannot be read, or that others can write to.
    pub fn prune(&self, limits: &Limits, dry_run: bool) -> io::Result<Pruned> {
        let entries = self.entries()?;
        if !dry_run {
            self.tidy()?;
            self.run.tidy();
        }
        let now = SystemTime::now();
        let mut pruned = Pruned {
            left: entries.len(),
            left_size: entries.iter().map(|entry| entry.size).sum(),
            ..Pruned::default()
        };
        for entry in entries {
            let unused = entry.unused_for(now);
            let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| unused >= limit);
            let goes = limits.all
                || is_over(limits.older_than)
                || (is_over(limits.other_versions) && !entry.is_current())
                || limits.max_size.is_some_and(|max| pruned.left_size > max);
            if !goes {
                continue;
            }
            let is_gone = if dry_run {
                !entry.is_in_use()
            } else {
                self.remove_entry(&entry, false)
            };
            if is_gone {
                pruned.left -= 1;
                pruned.left_size -= entry.size;
                pruned.removed.push(entry);
            } else {
                pruned.in_use.push(entry);
            }
        }
        Ok(pruned)
    }

    /// Removes what processes left that were killed while they compiled.
    fn tidy(&self) -> io::Result<()> {
        let mut left = HashSet::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(rest) = name
                .strip_prefix(LOCK)
                .or_else(|| name.strip_prefix(TEMPORARY))
            else {
                continue;
            };
            match Lane::parse(rest) {
                Some((lane, key)) => {
                    left.insert((lane, key));
                }
                None if is_abandoned(&entry) => {
                    let _ = fs::remove_file(entry.path());
                }
                None => {}
            }
        }
        for (lane, key) in left {
            // Dropping the lock removes its name.
            if let Ok(Some(_lock)) = Lock::try_take(&self.lock_path(lane, &key)) {
                let _ = fs::remove_file(self.temporary_path(lane, &key));
            }
        }
        Ok(())
    }
}

impl Lane {
    fn parse(rest: &str) -> Option<(Self, Key)> {
        Self::ALL.into_iter().find_map(|lane| {
            let key = Key::parse(rest.strip_prefix(lane.prefix())?)?;
            Some((lane, key))
        })
    }
}

fn is_abandoned(entry: &fs::DirEntry) -> bool {
    entry
        .metadata()
        .and_then(|metadata| metadata.modified())
        .is_ok_and(|modified| {
            SystemTime::now()
                .duration_since(modified)
                .is_ok_and(|age| age >= ABANDONED)
        })
}
