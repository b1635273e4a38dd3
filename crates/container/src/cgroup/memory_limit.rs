//! The file that tells a guest's process what its container's memory limit is
//! by now: its limiter asks before it refuses the guest anything. The process
//! sees no cgroups, so what leads there is opened before it enters its jail,
//! for reading only.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::files::ROOT;
use super::{Cgroup, Version};

/// What leads to the file.
#[derive(Debug)]
pub enum MemoryLimit {
    /// Itself.
    File(File),
    /// The mount of all cgroups, and the path below it: systemd makes the
    /// cgroup around a process that is in its jail by then.
    Later(OwnedFd, PathBuf),
    /// There is none; the kernel's limit holds all the same.
    Unknown,
}

impl Cgroup {
    /// Opens what leads to the file. Only for a cgroup that has been made,
    /// unless systemd will make it.
    pub fn memory_limit(&self) -> MemoryLimit {
        let name = match Version::of_node() {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        if self.systemd {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let below = self.unified().1.join(name);
            return open(Path::new(ROOT), flags, Mode::empty())
                .map_or(MemoryLimit::Unknown, |root| MemoryLimit::Later(root, below));
        }
        self.file("memory", name)
            .and_then(File::open)
            .map_or(MemoryLimit::Unknown, MemoryLimit::File)
    }
}

impl MemoryLimit {
    /// The file, for the process that is in the cgroup.
    pub fn file(self) -> Option<File> {
        match self {
            Self::File(file) => Some(file),
            Self::Later(root, path) => {
                let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
                openat(&root, &path, flags, Mode::empty())
                    .ok()
                    .map(File::from)
            }
            Self::Unknown => None,
        }
    }
}
