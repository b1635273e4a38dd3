//! The directory of compiled programs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::statvfs::statvfs;
use wisp_aot::Cache;
use wisp_config::Config;
use wisp_node::Finding;

/// What is enough for the programs of a few images (bytes).
const ROOM: u64 = 256 << 20;
/// How much is read to see whether files are damaged (bytes).
const SAMPLE: u64 = 512 << 20;

/// Looks at the directory and at what is in it.
pub fn check(config: &Config) -> Vec<Finding> {
    let dir = &config.cache.dir;
    let mut all = vec![place(dir)];
    if dir.exists() {
        all.push(content(&Cache::from_config(config)));
    }
    all
}

fn place(dir: &Path) -> Finding {
    let shown = dir.display();
    let meta = match fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok(
                "cache",
                format!("{shown} is not there yet; the first program makes it"),
            );
        }
        Err(error) => {
            return Finding::warning(
                "cache",
                format!("{shown}: {error}"),
                "run `wisp doctor` as root, or name another directory in [cache] dir",
            );
        }
    };
    let (owner, mode) = (meta.uid(), meta.permissions().mode() & 0o7777);
    if !meta.is_dir() {
        return Finding::warning(
            "cache",
            format!("{shown} is no directory, so each start compiles"),
            "remove it, or name another one in [cache] dir",
        );
    }
    if owner != 0 || mode & 0o022 != 0 {
        return Finding::warning(
            "cache",
            format!(
                "{shown} belongs to user {owner} and has mode {mode:04o}: others could put code \
                 there, so it is not used and each start compiles"
            ),
            format!("`chown root: {shown} && chmod 755 {shown}`, after a look at what is in it"),
        );
    }
    // As a start would; the file has no name that anybody could find.
    if let Err(error) = tempfile::tempfile_in(dir) {
        return Finding::warning(
            "cache",
            format!("{shown} cannot be written: {error}"),
            "make room or the file system writable; until then each start compiles",
        );
    }
    let free = statvfs(dir)
        .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()))
        .unwrap_or(u64::MAX);
    if free < ROOM {
        return Finding::warning(
            "cache",
            format!("{shown} has {} MiB of room left", free >> 20),
            format!(
                "make room, say by `wisp cache prune`, or name a larger file system in [cache] \
                 dir; {} MiB are enough for a few images",
                ROOM >> 20
            ),
        );
    }
    Finding::ok("cache", format!("{shown} has room and belongs to root"))
}

fn content(cache: &Cache) -> Finding {
    let entries = match cache.entries() {
        Ok(entries) => entries,
        Err(error) => {
            return Finding::warning(
                "compiled programs",
                format!("{}: {error}", cache.dir().display()),
                "run `wisp doctor` as root",
            );
        }
    };
    let (mut read, mut checked, mut damaged) = (0, 0, 0);
    // The latest first: they are the ones in use.
    for entry in entries.iter().rev() {
        if read > SAMPLE {
            break;
        }
        read += entry.size;
        checked += 1;
        damaged += u32::from(entry.verify().is_err() && entry.path.exists());
    }
    let all = entries.len();
    if damaged > 0 {
        return Finding::warning(
            "compiled programs",
            format!("{damaged} of {checked} that were read are damaged"),
            "`wisp cache verify --remove`, and a look at the disk; they are compiled again when \
             they are started",
        );
    }
    Finding::ok(
        "compiled programs",
        if checked < all {
            format!("the latest {checked} of {all} are whole")
        } else {
            format!("{all}, all whole")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use wisp_node::Status;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_trusted() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("aot");
        assert_eq!(place(&path).status, Status::Ok);
        fs::create_dir(&path).expect("make");
        mode(&path, 0o777);
        let found = place(&path);
        assert_eq!(found.status, Status::Warning);
        assert!(found.found.contains("0777"), "{found:?}");
        fs::remove_dir(&path).expect("remove");
        fs::write(&path, "").expect("write");
        assert!(place(&path).found.contains("no directory"));
    }

    #[test]
    fn an_empty_cache_is_whole() {
        let dir = tempfile::tempdir().expect("dir");
        let mut config = Config::default();
        config.cache.dir = dir.path().into();
        config.cache.run_dir = dir.path().join("run");
        assert_eq!(content(&Cache::from_config(&config)).status, Status::Ok);
    }
}
