//! The files that tell a guest's process what its container's limits are by
//! now: of memory, which its limiter asks before it refuses the guest anything,
//! and of processor time, by which a server has its threads. The process sees no
//! cgroups, so what leads there is opened before it enters its jail, for reading
//! only.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use wisp_engine::CpuLimit;

use super::files::ROOT;
use super::{Cgroup, Version};

/// What leads to one of them.
#[derive(Debug, Default)]
pub enum LimitFile {
    /// Itself.
    File(File),
    /// The mount of all cgroups, and the path below it: systemd makes the
    /// cgroup around a process that is in its jail by then.
    Later(OwnedFd, PathBuf),
    /// There is none; the kernel's limit holds all the same.
    #[default]
    Unknown,
}

/// What leads to those about processor time.
#[derive(Debug, Default)]
pub struct CpuFiles {
    quota: LimitFile,
    period: LimitFile,
}

impl Cgroup {
    /// Opens what leads to the file about memory. Only for a cgroup that has been
    /// made, unless systemd will make it.
    pub fn memory_limit(&self) -> LimitFile {
        self.limit_file(
            "memory",
            match Version::of_node() {
                Version::V1 => "memory.limit_in_bytes",
                Version::V2 => "memory.max",
            },
        )
    }

    /// The same for processor time.
    pub fn cpu_limit(&self) -> CpuFiles {
        match Version::of_node() {
            Version::V1 => CpuFiles {
                quota: self.limit_file("cpu", "cpu.cfs_quota_us"),
                period: self.limit_file("cpu", "cpu.cfs_period_us"),
            },
            Version::V2 => CpuFiles {
                quota: self.limit_file("cpu", "cpu.max"),
                period: LimitFile::Unknown,
            },
        }
    }

    fn limit_file(&self, controller: &str, name: &str) -> LimitFile {
        if self.systemd {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let below = self.unified().1.join(name);
            return open(Path::new(ROOT), flags, Mode::empty())
                .map_or(LimitFile::Unknown, |root| LimitFile::Later(root, below));
        }
        self.file(controller, name)
            .and_then(File::open)
            .map_or(LimitFile::Unknown, LimitFile::File)
    }
}

impl LimitFile {
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

impl CpuFiles {
    /// The files, for the process that is in the cgroup.
    pub fn files(self) -> CpuLimit {
        CpuLimit {
            quota: self.quota.file(),
            period: self.period.file(),
        }
    }
}
