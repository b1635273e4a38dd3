//! A cgroup's directory and those below it, which whoever was inside may have
//! made.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// Adds the processes in `dir` and below to `found`; no such directory has none.
///
/// # Errors
/// When it cannot be read.
pub fn pids(dir: &Path, found: &mut BTreeSet<i32>) -> io::Result<()> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        Err(error) if is_gone(&error) => return Ok(()),
        // A threaded cgroup of version 2: its domain above lists them all.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    each_below(dir, |below| pids(below, found))
}

/// Removes `dir` and what is below it; none there is fine.
///
/// # Errors
/// When processes are left inside.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        // Something is in it: a process, or another cgroup.
        Err(_) => {}
    }
    each_below(dir, remove)?;
    match fs::remove_dir(dir) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

fn each_below(dir: &Path, mut visit: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path())?;
        }
    }
    Ok(())
}

/// Removed meanwhile: open files of a removed cgroup answer ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_below_count_and_files_do_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let below = dir.path().join("below");
        fs::create_dir(&below).expect("dir");
        fs::write(dir.path().join("cgroup.procs"), "7\n9\n").expect("file");
        fs::write(below.join("cgroup.procs"), "8\n").expect("file");
        let mut found = BTreeSet::new();
        pids(dir.path(), &mut found).expect("pids");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn what_is_not_there_is_empty_and_removed() {
        let dir = tempfile::tempdir().expect("temp dir");
        let gone = dir.path().join("gone");
        let mut found = BTreeSet::new();
        pids(&gone, &mut found).expect("pids");
        assert!(found.is_empty());
        remove(&gone).expect("remove");
    }

    #[test]
    fn directories_below_go_first() {
        let dir = tempfile::tempdir().expect("temp dir");
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).expect("dirs");
        remove(&top).expect("remove");
        assert!(!top.exists());
    }
}
