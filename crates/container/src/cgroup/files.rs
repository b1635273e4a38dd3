//! Where a cgroup's files are, and reading and writing them.
//!
//! Source: the kernel's `admin-guide/cgroup-v1` and `admin-guide/cgroup-v2`.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use libcgroups::common::{CgroupSetup, get_cgroup_setup};

use super::{Cgroup, split_systemd, systemd_as_path};

/// Where cgroups are mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

/// Which kind of hierarchy the node's controllers are in. On hybrid machines,
/// whose version 2 hierarchy has no controllers, that is version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One for all.
    V2,
}

impl Version {
    /// This machine's.
    pub fn of_node() -> Self {
        match get_cgroup_setup() {
            Ok(CgroupSetup::Unified) => Self::V2,
            _ => Self::V1,
        }
    }
}

impl Cgroup {
    /// Where `controller` has its files of this cgroup; `None` if no hierarchy
    /// with that controller is mounted. Version 2 has one place for all.
    pub fn dir(&self, controller: &str) -> Option<PathBuf> {
        let (mount, path) = match Version::of_node() {
            Version::V2 => (PathBuf::from(ROOT), self.plain_path()),
            Version::V1 => (v1_mount(controller)?, self.path.clone()),
        };
        Some(below(&mount, &path))
    }

    /// Its path below the mount, also where systemd has made it.
    pub(super) fn plain_path(&self) -> PathBuf {
        match split_systemd(&self.path) {
            Some((slice, prefix, name)) if self.systemd => systemd_as_path(slice, prefix, name),
            _ => self.path.clone(),
        }
    }

    /// The content of one of `controller`'s files.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no such controller, cgroup or file.
    pub fn read(&self, controller: &str, file: &str) -> io::Result<String> {
        fs::read_to_string(self.file(controller, file)?)
    }

    /// Writes `value` into one of `controller`'s files.
    ///
    /// # Errors
    /// As for [`Self::read`], or the kernel's refusal.
    pub(super) fn write(&self, controller: &str, file: &str, value: &str) -> io::Result<()> {
        // The kernel takes a value from one write; the file exists or it has none.
        fs::OpenOptions::new()
            .write(true)
            .open(self.file(controller, file)?)?
            .write_all(value.as_bytes())
    }

    pub(super) fn file(&self, controller: &str, file: &str) -> io::Result<PathBuf> {
        self.dir(controller)
            .map(|dir| dir.join(file))
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no cgroup controller {controller} on this node"),
                )
            })
    }
}

impl Cgroup {
    /// All its directories: one for each of version 1's hierarchies that have
    /// controllers, one in all for version 2. They need not be there.
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        match Version::of_node() {
            Version::V2 => vec![below(Path::new(ROOT), &self.plain_path())],
            Version::V1 => v1_hierarchies()
                .map(|mount| below(mount, &self.path))
                .collect(),
        }
    }

    /// Version 2's mount point and the path below it.
    pub(super) fn unified(&self) -> (&'static Path, PathBuf) {
        (Path::new(ROOT), below(Path::new(""), &self.plain_path()))
    }
}

/// The mount points of version 1's hierarchies that have controllers.
fn v1_hierarchies() -> impl Iterator<Item = &'static Path> {
    let mounts = v1_table();
    let is_first = |index: usize, mount: &Path| mounts[..index].iter().all(|(_, m)| m != mount);
    mounts
        .iter()
        .enumerate()
        // A named hierarchy (systemd's) has no controller and no limits.
        .filter(|(_, (_, mount))| {
            !mounts
                .iter()
                .any(|(name, other)| other == mount && name.starts_with("name="))
        })
        .filter(move |(index, (_, mount))| is_first(*index, mount))
        .map(|(_, (_, mount))| mount.as_path())
}

/// `path` below `mount`, never above it.
fn below(mount: &Path, path: &Path) -> PathBuf {
    let mut all = mount.to_owned();
    for part in path.components() {
        if let Component::Normal(name) = part {
            all.push(name);
        }
    }
    all
}

/// Where version 1's hierarchy with `controller` is mounted.
fn v1_mount(controller: &str) -> Option<PathBuf> {
    v1_table()
        .iter()
        .find(|(name, _)| name == controller)
        .map(|(_, mount)| mount.clone())
}

fn v1_table() -> &'static [(String, PathBuf)] {
    // Mounts of cgroups are made at boot.
    static MOUNTS: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    MOUNTS
        .get_or_init(|| v1_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
}

/// Version 1's controllers and mount points by a table of mounts, `proc(5)`.
fn v1_mounts(table: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((mount, fs)) = line.split_once(" - ") else {
            continue;
        };
        let mut fs = fs.split(' ');
        if fs.next() != Some("cgroup") {
            continue;
        }
        let (Some(point), Some(options)) = (mount.split(' ').nth(4), fs.nth(1)) else {
            continue;
        };
        for option in options.split(',') {
            found.push((option.to_owned(), PathBuf::from(point)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_that_share_a_hierarchy_are_found() {
        let mounts = v1_mounts(
            "25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:4 - cgroup cgroup rw,cpu,cpuacct\n\
             26 24 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             27 24 0:24 / /sys/fs/cgroup/memory rw - cgroup none rw,memory\n\
             malformed\n",
        );
        let at = |name: &str| mounts.iter().find(|(have, _)| have == name);
        let shared = Path::new("/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(at("cpuacct").map(|(_, path)| path.as_path()), Some(shared));
        assert!(at("memory").is_some());
        assert!(!mounts.iter().any(|(_, path)| path.ends_with("unified")));
    }

    #[test]
    fn a_path_never_leaves_the_mount() {
        assert_eq!(
            below(Path::new("/cg"), Path::new("/../a/./../b")),
            Path::new("/cg/a/b")
        );
    }
}
