//! Mounts by descriptor: from a tree that is attached nowhere yet to a place
//! that has been looked up safely. No path is looked at twice, so no link that
//! is changed in between leads anywhere else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use libcontainer::rootfs::utils::parse_mount;
use libcontainer::syscall::SyscallError;
use libcontainer::syscall::linux::{
    AT_EMPTY_PATH, AT_RECURSIVE, MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME, MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, MountAttr,
};
use libcontainer::syscall::syscall::create_syscall;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Mount;

use crate::error::{ContainerError, chain};

/// Attributes of one mount (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
}

impl Attributes {
    /// For what a guest reads and writes: no devices, no set-user-ID programs.
    pub fn guest() -> Self {
        Self {
            set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
            ..Self::default()
        }
    }

    /// The same, and nothing in it can be executed or mapped as code.
    pub fn sealed() -> Self {
        let mut attributes = Self::guest();
        attributes.set |= MOUNT_ATTR_NOEXEC;
        attributes
    }

    /// Whether it can be written.
    pub fn writable(mut self, writable: bool) -> Self {
        if !writable {
            self.set |= MOUNT_ATTR_RDONLY;
        }
        self
    }

    fn raw(self) -> MountAttr {
        MountAttr {
            attr_set: self.set,
            attr_clr: self.clear,
            propagation: self.propagation,
            userns_fd: 0,
        }
    }
}

/// Attaches a copy of the mounts at `source` (with those below it, if
/// `recursive`) to the place `target`.
///
/// # Errors
/// The kernel's refusal.
pub fn attach(
    source: &Path,
    recursive: bool,
    attributes: Attributes,
    target: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let system = create_syscall();
    let below = if recursive { AT_RECURSIVE } else { 0 };
    let source = source.to_str().ok_or(Errno::EINVAL)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | below;
    let tree = system
        .open_tree(libc::AT_FDCWD, Some(source), flags)
        .map_err(errno)?;
    set(tree.as_fd(), AT_EMPTY_PATH, attributes)?;
    if recursive && attributes.propagation != 0 {
        let only = Attributes {
            propagation: attributes.propagation,
            ..Attributes::default()
        };
        set(tree.as_fd(), AT_EMPTY_PATH | AT_RECURSIVE, only)?;
    }
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    system
        .move_mount(tree.as_fd(), None, target, None, flags)
        .map_err(errno)
}

/// Makes the mount at `place` read-only.
///
/// # Errors
/// The kernel's refusal.
pub fn protect(place: BorrowedFd<'_>) -> Result<(), Errno> {
    set(place, AT_EMPTY_PATH, Attributes::default().writable(false))
}

fn set(place: BorrowedFd<'_>, flags: u32, attributes: Attributes) -> Result<(), Errno> {
    create_syscall()
        .mount_setattr(
            place,
            Path::new(""),
            flags,
            &attributes.raw(),
            size_of::<MountAttr>(),
        )
        .map_err(errno)
}

/// Mounts a volume of the spec on `place` (runtime spec, `mounts`).
///
/// # Errors
/// Names the volume.
pub fn mount_on(volume: &Mount, place: BorrowedFd<'_>) -> Result<(), ContainerError> {
    let failed = |reason: String| ContainerError::MountPoint {
        destination: volume.destination().display().to_string(),
        reason,
    };
    if volume.uid_mappings().is_some() || volume.gid_mappings().is_some() {
        return Err(failed(
            "a volume with mapped ids needs a user namespace, which Wasm containers do not have"
                .into(),
        ));
    }
    let options = parse_mount(volume).map_err(|e| failed(chain(&e)))?;
    let flags = MsFlags::from_bits_truncate(options.flags.bits());
    let source = volume.source().clone().unwrap_or_default();
    let kind = volume.typ().as_deref().unwrap_or_default();
    if kind == "bind" || flags.contains(MsFlags::MS_BIND) {
        let attributes = of_flags(flags, propagation(volume));
        let recursive = flags.contains(MsFlags::MS_REC);
        attach(&source, recursive, attributes, place)
            .map_err(|e| failed(format!("bind {}: {e}", source.display())))?;
    } else {
        let flags = flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let data = options.data.join(",");
        let target = format!("/proc/self/fd/{}", place.as_raw_fd());
        mount(
            Some(&source),
            target.as_str(),
            Some(kind),
            flags,
            Some(data.as_str()),
        )
        .map_err(|e| failed(format!("mount a {kind:?} file system: {e}")))?;
    }
    if let Some(recursive) = &options.rec_attr {
        let reopened = reopen(place).map_err(|e| failed(e.to_string()))?;
        let attributes = Attributes {
            set: recursive.attr_set,
            clear: recursive.attr_clr,
            propagation: 0,
        };
        set(reopened.as_fd(), AT_EMPTY_PATH | AT_RECURSIVE, attributes)
            .map_err(|e| failed(format!("recursive options: {e}")))?;
    }
    Ok(())
}

/// What is mounted at `place` by now: a descriptor stays with what it was
/// opened for, which is below.
fn reopen(place: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd, Errno> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
        .map_err(|_| Errno::ENOENT)?;
    nix::fcntl::open(
        &path,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
}

/// The propagation that a volume asks for; private when it does not say. What
/// asks to be shared is a slave: a guest mounts nothing that could be passed
/// on, and the process must not.
fn propagation(volume: &Mount) -> u64 {
    let asks = |names: &[&str]| {
        volume
            .options()
            .iter()
            .flatten()
            .any(|option| names.contains(&option.as_str()))
    };
    let flag = if asks(&["slave", "rslave", "shared", "rshared"]) {
        MsFlags::MS_SLAVE
    } else {
        MsFlags::MS_PRIVATE
    };
    flag.bits()
}

fn of_flags(flags: MsFlags, propagation: u64) -> Attributes {
    let mut attributes = Attributes::guest();
    attributes.propagation = propagation;
    for (flag, attribute) in [
        (MsFlags::MS_RDONLY, MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NOEXEC, MOUNT_ATTR_NOEXEC),
        (MsFlags::MS_NODIRATIME, MOUNT_ATTR_NODIRATIME),
    ] {
        if flags.contains(flag) {
            attributes.set |= attribute;
        }
    }
    for (flag, attribute) in [
        (MsFlags::MS_NOATIME, MOUNT_ATTR_NOATIME),
        (MsFlags::MS_STRICTATIME, MOUNT_ATTR_STRICTATIME),
    ] {
        if flags.contains(flag) {
            attributes.set |= attribute;
            // One of three values, not a bit (mount_setattr(2)).
            attributes.clear |= MOUNT_ATTR__ATIME;
        }
    }
    attributes
}

fn errno(error: SyscallError) -> Errno {
    match error {
        SyscallError::Nix(errno) => Errno::from_raw(errno as i32),
        _ => Errno::EINVAL,
    }
}
