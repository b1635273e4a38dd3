//! Putting a guest's process into its cgroup without stopping the machine.
//!
//! Moving a process by its number takes a lock of the whole kernel
//! (`cgroup_threadgroup_rwsem`), whose writer waits for all processors to pass
//! through the scheduler: 8 to 20 ms on an idle machine, more than all else
//! that creating a guest's container takes. A process of one thread that moves
//! *itself* does not take that lock (version 1: writing `0` to `tasks`), nor
//! does one that is cloned into its cgroup (version 2: `CLONE_INTO_CGROUP`).
//! Source: `kernel/cgroup/cgroup.c`, `cgroup_procs_write_start` and
//! `cgroup_css_set_fork`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use libcgroups::common::CgroupManager;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use oci_spec::runtime::LinuxResources;

use super::scope::Scope;
use super::{Cgroup, Version};
use crate::error::ContainerError;

/// clone3(2); libc's constant of this name has too few bits.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A cgroup that exists, with its limits set, and open for a process to enter.
#[derive(Debug)]
pub enum Membership {
    /// Version 1: the `tasks` file of each hierarchy.
    Tasks(Vec<File>),
    /// Version 2: the directory.
    Directory(OwnedFd),
    /// systemd moves the process itself.
    Systemd(Box<Scope>),
}

/// What a process is after [`Membership::fork`].
#[derive(Debug)]
pub enum Forked {
    /// The new process, in the cgroup.
    Child,
    /// Its parent, with its pid as the parent sees it.
    Parent(Pid),
    /// Neither: it only stood between the two.
    Neither,
}

impl Membership {
    /// Creates `cgroup` with the limits of `resources`.
    ///
    /// # Errors
    /// The file that could not be written, or the limit that does not fit.
    pub fn create(
        cgroup: &Cgroup,
        resources: Option<&LinuxResources>,
    ) -> Result<Self, ContainerError> {
        if cgroup.systemd() {
            return Scope::prepare(cgroup, resources).map(|scope| Self::Systemd(Box::new(scope)));
        }
        let membership = match Version::of_node() {
            Version::V1 => {
                let mut tasks = Vec::new();
                for dir in cgroup.dirs() {
                    legacy(&dir).map_err(io_error("create cgroup", &dir))?;
                    let file = dir.join("tasks");
                    let open = OpenOptions::new().write(true).open(&file);
                    tasks.push(open.map_err(io_error("open", &file))?);
                }
                Self::Tasks(tasks)
            }
            Version::V2 => {
                let (root, path) = cgroup.unified();
                let dir = root.join(&path);
                unified(root, &path).map_err(io_error("create cgroup", &dir))?;
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let fd = nix::fcntl::open(&dir, flags, Mode::empty())
                    .map_err(|e| io_error("open cgroup", &dir)(e.into()))?;
                Self::Directory(fd)
            }
        };
        if let Some(resources) = resources {
            cgroup.limit(resources)?;
        }
        Ok(membership)
    }

    /// Forks a process into the cgroup. `enter` is called by the process that
    /// forks it, just before: the place to enter a PID namespace.
    ///
    /// # Errors
    /// The kernel's refusal, in whichever process met it.
    pub fn fork(
        self,
        enter: impl FnOnce() -> Result<(), ContainerError>,
    ) -> Result<Forked, ContainerError> {
        match self {
            Self::Tasks(files) => {
                enter()?;
                let forked = plain_fork()?;
                if matches!(forked, Forked::Child) {
                    for mut file in files {
                        file.write_all(b"0")
                            .map_err(|e| ContainerError::Init(format!("join the cgroup: {e}")))?;
                    }
                }
                Ok(forked)
            }
            Self::Directory(dir) => match clone_into(&dir)? {
                // What libc remembers of its process is wrong after a bare
                // clone; its own fork puts that right.
                Forked::Child => {
                    drop(dir);
                    enter()?;
                    plain_fork()
                }
                _ => Ok(Forked::Neither),
            },
            Self::Systemd(scope) => {
                enter()?;
                let (wait, go) = pipe2(OFlag::O_CLOEXEC)
                    .map_err(|e| ContainerError::Init(format!("pipe: {e}")))?;
                let forked = plain_fork()?;
                match forked {
                    Forked::Parent(pid) => {
                        drop(wait);
                        scope.take(pid)?;
                        File::from(go)
                            .write_all(b"1")
                            .map_err(|e| ContainerError::Init(format!("pipe: {e}")))?;
                    }
                    _ => {
                        drop((go, scope));
                        let mut byte = [0];
                        File::from(wait).read_exact(&mut byte).map_err(|_| {
                            ContainerError::Init("not taken into its cgroup".into())
                        })?;
                    }
                }
                Ok(forked)
            }
        }
    }
}

fn plain_fork() -> Result<Forked, ContainerError> {
    // SAFETY: the init role has a single thread, so the child may do whatever
    // its parent may.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => Ok(Forked::Child),
        Ok(ForkResult::Parent { child }) => Ok(Forked::Parent(child)),
        Err(errno) => Err(ContainerError::Init(format!("fork: {errno}"))),
    }
}

fn clone_into(dir: &OwnedFd) -> Result<Forked, ContainerError> {
    // SAFETY: all-zero is a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = u64::from(dir.as_raw_fd().unsigned_abs());
    // SAFETY: no memory is shared and no stack is given, so this is a fork; the
    // init role has a single thread. `args` outlives the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    };
    match Errno::result(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) => Ok(Forked::Parent(Pid::from_raw(
            i32::try_from(pid).unwrap_or_default(),
        ))),
        Err(errno) => Err(ContainerError::Init(format!(
            "clone into the cgroup: {errno}"
        ))),
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContainerError {
    let path = path.to_owned();
    move |source| ContainerError::Io { what, path, source }
}

/// Creates a directory of version 1, with its ancestors. A new cpuset has no
/// processors and no memory and takes no process, so it gets its parent's.
fn legacy(dir: &Path) -> io::Result<()> {
    const NEEDED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
    let has_what_it_needs = |dir: &Path| -> io::Result<bool> {
        for file in NEEDED {
            match fs::read_to_string(dir.join(file)) {
                Ok(text) if text.trim().is_empty() => return Ok(false),
                Ok(_) => {}
                // Not a cpuset.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    };
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = dir.parent() else {
                return Err(error);
            };
            legacy(parent)?;
            create_dir(dir)?;
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if !has_what_it_needs(dir)?
        && let Some(parent) = dir.parent()
    {
        legacy(parent)?;
        for file in NEEDED {
            fs::write(dir.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Version 2: every ancestor hands on all the controllers it has.
fn unified(root: &Path, path: &Path) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in path {
        let have = fs::read_to_string(dir.join("cgroup.controllers"))?;
        let handed = fs::read_to_string(dir.join("cgroup.subtree_control"))?;
        for controller in have.split_whitespace() {
            if !handed.split_whitespace().any(|other| other == controller) {
                // Some cannot be (cpu, with real-time processes about); the
                // limit that needs it says so.
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        dir.push(part);
        create_dir(&dir)?;
    }
    Ok(())
}

fn create_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Cgroup {
    /// Has systemd make the scope around a process. Answers when it is inside.
    ///
    /// # Errors
    /// The manager's refusal.
    pub(super) fn add(&self, pid: i32) -> Result<(), ContainerError> {
        self.manager()?
            .add_task(nix_of_libcgroups::unistd::Pid::from_raw(pid))
            .map_err(|error| self.error("join the cgroup of", &error))
    }
}
