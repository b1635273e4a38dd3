//! The two programs: found, copied to where the node can run them, kept for as
//! long as somebody runs them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::error::InstallError;
use crate::files::{self, digest};
use crate::layout::below;
use crate::{CLI, SHIM};

/// Where programs go on the node, if it can be written to and run from.
const DIRECTORIES: [&str; 3] = ["/opt/wisp", "/usr/local/lib/wisp", "/var/lib/wisp/programs"];
/// The link to the directory of the version that containerd runs. It is what
/// containerd is told, so that another version needs no new configuration.
const CURRENT: &str = "bin";

/// The programs to be installed.
#[derive(Debug, Clone)]
pub struct Found {
    dir: PathBuf,
    /// What both say they are.
    pub version: String,
}

impl Found {
    /// The shim and `wisp` in `dir`.
    ///
    /// # Errors
    /// One that is missing, does not run on this machine, or is of another
    /// version than the other.
    pub fn of(dir: &Path) -> Result<Self, InstallError> {
        let shim = version(&dir.join(SHIM), "-v")?;
        let cli = version(&dir.join(CLI), "--version")?;
        if shim != cli {
            return Err(InstallError::Program {
                path: dir.join(SHIM),
                reason: format!("is of version {shim}, and {CLI} beside it of {cli}"),
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
            version: shim,
        })
    }

    /// Copies both into a directory of the node below `root`, named by what is
    /// in them. `wanted` is the only place that is tried, if it is given; `before`
    /// hears of each place before anything is put there.
    ///
    /// # Errors
    /// When no place will do, and those of `before`.
    pub fn place(
        &self,
        root: &Path,
        wanted: Option<&Path>,
        before: &mut dyn FnMut(&Path) -> Result<(), InstallError>,
    ) -> Result<Placed, InstallError> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            fs::read(&path).map_err(InstallError::io("read", &path))
        };
        let (shim, cli) = (read(SHIM)?, read(CLI)?);
        let name = digest(format!("{}{}", digest(&shim), digest(&cli)).as_bytes());
        let name = &name[..16];
        let candidates: Vec<&Path> = match wanted {
            Some(wanted) => vec![wanted],
            None => DIRECTORIES.iter().map(Path::new).collect(),
        };
        let mut reasons = Vec::new();
        for place in candidates {
            let dir = below(root, place);
            let begun = !dir.exists();
            before(place)?;
            match copy(&dir, name, &[(SHIM, &shim), (CLI, &cli)]) {
                Ok(()) => {
                    return Ok(Placed {
                        place: place.to_owned(),
                        name: name.into(),
                    });
                }
                Err(error) => {
                    if begun {
                        let _ = fs::remove_dir_all(&dir);
                    }
                    reasons.push(format!("{}: {error}", place.display()));
                }
            }
        }
        Err(InstallError::NoDirectory(reasons.join("; ")))
    }
}

/// Programs that are there, and not yet those that containerd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The directory of all versions, on the node.
    pub place: PathBuf,
    /// The one of this version, in it.
    pub name: PathBuf,
}

/// The version in `place` that containerd runs, if there is one.
pub fn current(root: &Path, place: &Path) -> Option<PathBuf> {
    fs::read_link(below(root, place).join(CURRENT)).ok()
}

/// Makes `name` the version in `place` that containerd runs, from the next
/// container on.
///
/// # Errors
/// The kernel's refusal.
pub fn switch(root: &Path, place: &Path, name: &Path) -> Result<(), InstallError> {
    files::link(name, &below(root, place).join(CURRENT))
}

/// The shim that containerd is told to run, in a place for programs.
pub fn shim(place: &Path) -> PathBuf {
    place.join(CURRENT).join(SHIM)
}

fn copy(dir: &Path, name: &str, programs: &[(&str, &[u8])]) -> Result<(), String> {
    let target = dir.join(name);
    if target.exists() {
        return runs(&target);
    }
    let new = dir.join(format!(".{name}"));
    let made = || -> io::Result<()> {
        if new.exists() {
            // What an interrupted run has left.
            fs::remove_dir_all(&new)?;
        }
        fs::create_dir_all(&new)?;
        for path in [dir, &new] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        for (name, bytes) in programs {
            let path = new.join(name);
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            fs::File::open(&path)?.sync_all()?;
        }
        Ok(())
    };
    let placed = made()
        .map_err(|error| error.to_string())
        .and_then(|()| runs(&new))
        .and_then(|()| fs::rename(&new, &target).map_err(|error| error.to_string()));
    if placed.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    placed
}

fn runs(dir: &Path) -> Result<(), String> {
    version(&dir.join(SHIM), "-v")
        .map(drop)
        .map_err(|error| match error {
            InstallError::Program { reason, .. } => reason,
            other => other.to_string(),
        })
}

fn version(path: &Path, flag: &str) -> Result<String, InstallError> {
    let bad = |reason: String| InstallError::Program {
        path: path.to_owned(),
        reason,
    };
    let said = run(path, flag).map_err(|error| {
        bad(match error.raw_os_error() {
            Some(libc_enoexec) if libc_enoexec == nix::errno::Errno::ENOEXEC as i32 => format!(
                "is no program for this machine ({})",
                std::env::consts::ARCH
            ),
            _ if error.kind() == io::ErrorKind::PermissionDenied => {
                "cannot be run there: the file system is mounted noexec, or the file has no \
                     right to be executed"
                    .into()
            }
            _ => error.to_string(),
        })
    })?;
    let text = String::from_utf8_lossy(&said.stdout);
    // `wisp 1.2.3`, or the line `Version: 1.2.3` among others.
    text.lines()
        .find_map(|line| {
            let line = line.trim();
            line.strip_prefix("Version:")
                .or_else(|| line.strip_prefix("wisp "))
        })
        .map(|version| version.trim().to_owned())
        .filter(|version| said.status.success() && !version.is_empty())
        .ok_or_else(|| bad(format!("ended with {} and said no version", said.status)))
}

fn run(path: &Path, flag: &str) -> io::Result<Output> {
    let mut tries = 0;
    loop {
        let said = Command::new(path).arg(flag).stdin(Stdio::null()).output();
        match said {
            // What was just written: another thread's child has it open until
            // it becomes its program.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            said => return said,
        }
    }
}

/// The processes that run programs in `place` of the node: daemons of pods, and
/// guests.
pub fn in_use(place: &Path) -> Vec<i32> {
    let own = std::process::id();
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    all.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let program = fs::read_link(entry.path().join("exe")).ok()?;
        let shim = program.starts_with(place)
            && program
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(SHIM));
        (shim && u32::try_from(pid) != Ok(own)).then_some(pid)
    })
    .collect()
}

/// Removes the versions in `place` of the node below `root` that are neither the
/// current one nor `other` and that nobody runs.
///
/// # Errors
/// The kernel's refusal.
pub fn tidy(root: &Path, place: &Path, other: Option<&Path>) -> Result<(), InstallError> {
    let current = current(root, place);
    let keep: Vec<&Path> = current.as_deref().into_iter().chain(other).collect();
    remove_versions(&below(root, place), place, &keep)
}

/// Removes all versions in `place` that nobody runs, and the place with the last.
///
/// # Errors
/// The kernel's refusal.
pub fn remove(root: &Path, place: &Path) -> Result<(), InstallError> {
    let dir = below(root, place);
    if !dir.exists() {
        return Ok(());
    }
    files::remove(&dir.join(CURRENT))?;
    remove_versions(&dir, place, &[])?;
    // Only if nobody else put anything there.
    let _ = fs::remove_dir(&dir);
    Ok(())
}

fn remove_versions(dir: &Path, place: &Path, keep: &[&Path]) -> Result<(), InstallError> {
    let entries = fs::read_dir(dir).map_err(InstallError::io("list", dir))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let text = name.to_string_lossy();
        let is_ours = text.trim_start_matches('.').len() == 16
            && text
                .trim_start_matches('.')
                .chars()
                .all(|c| c.is_ascii_hexdigit());
        if !is_ours || keep.iter().any(|keep| keep.as_os_str() == name) {
            continue;
        }
        if in_use(&place.join(&name)).is_empty() {
            fs::remove_dir_all(entry.path()).map_err(InstallError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::programs;

    #[test]
    fn versions_lie_beside_each_other_and_one_is_current() {
        let root = tempfile::tempdir().expect("root");
        let (one, two) = (programs("1.0.0"), programs("2.0.0"));
        let found = Found::of(one.path()).expect("programs");
        assert_eq!(found.version, "1.0.0");
        let put = |found: &Found| {
            let placed = found
                .place(root.path(), None, &mut |_| Ok(()))
                .expect("placed");
            let before = current(root.path(), &placed.place);
            switch(root.path(), &placed.place, &placed.name).expect("switched");
            before
        };
        assert_eq!(put(&found), None);
        let place = PathBuf::from("/opt/wisp");
        let dir = below(root.path(), &place);
        let count = || fs::read_dir(&dir).expect("dir").count();
        assert_eq!(
            version(&dir.join("bin").join(SHIM), "-v").expect("runs"),
            "1.0.0"
        );
        let first = put(&found).expect("the same");
        assert_eq!(count(), 2);
        let newer = Found::of(two.path()).expect("programs");
        assert_eq!(put(&newer), Some(first));
        assert_eq!(
            version(&dir.join("bin").join(SHIM), "-v").expect("runs"),
            "2.0.0"
        );
        assert_eq!(count(), 3);
        fs::write(dir.join("mine"), "").expect("write");
        tidy(root.path(), &place, None).expect("tidy");
        assert_eq!(count(), 3);
        remove(root.path(), &place).expect("remove");
        assert_eq!(count(), 1);
        fs::remove_file(dir.join("mine")).expect("remove");
        remove(root.path(), &place).expect("again");
        assert!(!dir.exists());
        remove(root.path(), &place).expect("nothing there");
    }

    #[test]
    fn what_is_no_pair_of_programs_is_refused() {
        let dir = programs("1.0.0");
        let shim = dir.path().join(SHIM);
        fs::write(&shim, "#!/bin/sh\necho 'Version: 2.0.0'\n").expect("write");
        let error = Found::of(dir.path()).expect_err("two versions").to_string();
        assert!(
            error.contains("2.0.0") && error.contains("1.0.0"),
            "{error}"
        );
        fs::write(&shim, b"\x7fELFnonsense").expect("write");
        let error = Found::of(dir.path()).expect_err("no program").to_string();
        assert!(error.contains("no program for this machine"), "{error}");
        fs::remove_file(&shim).expect("remove");
        let error = Found::of(dir.path()).expect_err("missing").to_string();
        assert!(error.contains(SHIM), "{error}");
    }

    #[test]
    fn a_place_that_will_not_do_is_left_as_it_was() {
        let root = tempfile::tempdir().expect("root");
        let dir = programs("1.0.0");
        let found = Found::of(dir.path()).expect("programs");
        fs::write(root.path().join("file"), "").expect("write");
        let error = found
            .place(root.path(), Some(Path::new("/file/x")), &mut |_| Ok(()))
            .expect_err("no directory")
            .to_string();
        assert!(
            error.contains("/file/x") && error.contains("--programs"),
            "{error}"
        );
        assert_eq!(fs::read_dir(root.path()).expect("dir").count(), 1);
    }
}
