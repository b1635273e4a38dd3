//! The root file system's mounts, and places in it for the spec's mounts.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use containerd_shim::mount::mount_rootfs;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::control::RootfsMount;
use crate::error::ContainerError;

/// Makes `mounts` at `target`, in order, creating `target` if need be.
///
/// # Errors
/// The mount that failed; those made before it stay for the caller to undo.
pub fn mount_all(mounts: &[RootfsMount], target: &Path) -> Result<(), ContainerError> {
    if mounts.is_empty() {
        return Ok(());
    }
    match fs::create_dir(target) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(ContainerError::Io {
                what: "create",
                path: target.to_owned(),
                source,
            });
        }
        _ => {}
    }
    for mount in mounts {
        // What containerd 2 asks of a root file system for a user namespace.
        if let Some(option) = mount.options.iter().find(|o| o.starts_with("uidmap=")) {
            return Err(ContainerError::Unsupported(format!(
                "a root file system with mapped ids ({option}) is not supported: \
                 in a pod, leave out `hostUsers: false`"
            )));
        }
        mount_rootfs(
            Some(mount.kind.as_str()).filter(|kind| !kind.is_empty()),
            Some(mount.source.as_str()),
            &mount.options,
            target,
        )
        .map_err(|error| ContainerError::Mount {
            source_path: mount.source.clone(),
            target: target.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointKind {
    /// A directory is mounted.
    Directory,
    /// A single file is mounted.
    File,
}

/// Finds the place of `destination` inside `rootfs`, resolving links as the
/// container would see them and never leaving `rootfs`; creates what is
/// missing. Answers the place as an absolute path in which no link is left, and
/// as a descriptor (`O_PATH`).
///
/// # Errors
/// When the place cannot be created, is of the wrong kind, or the root file
/// system is read-only.
pub fn mount_point(
    rootfs: &Path,
    destination: &Path,
    kind: PointKind,
) -> Result<(PathBuf, OwnedFd), ContainerError> {
    let bad = |reason: String| ContainerError::MountPoint {
        destination: destination.display().to_string(),
        reason,
    };
    let root = open_dir(rootfs).map_err(|e| bad(format!("open {}: {e}", rootfs.display())))?;
    let names: Vec<_> = destination
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir => Some(Err(bad("must not contain `..`".into()))),
            _ => None,
        })
        .collect::<Result<_, _>>()?;
    let Some((last, parents)) = names.split_last() else {
        return Err(bad("the root itself cannot be mounted over".into()));
    };

    let mut at = PathBuf::from(".");
    for name in parents {
        at.push(name);
        ensure(&root, &at, PointKind::Directory).map_err(&bad)?;
    }
    at.push(last);
    let found = ensure(&root, &at, kind).map_err(&bad)?;

    let root_path = real_path(&root).map_err(|e| bad(e.to_string()))?;
    let path = real_path(&found).map_err(|e| bad(e.to_string()))?;
    match path.strip_prefix(&root_path) {
        Ok(inside) if !inside.as_os_str().is_empty() => Ok((Path::new("/").join(inside), found)),
        _ => Err(bad(format!("leads to {}", path.display()))),
    }
}

/// Opens a directory as a place (`O_PATH`).
///
/// # Errors
/// The kernel's refusal.
pub fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    nix::fcntl::open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// Opens `path` below `root` as a place, without ever leaving `root`, whatever
/// links say.
///
/// # Errors
/// The kernel's refusal.
pub fn open_in(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

fn ensure(root: &OwnedFd, path: &Path, kind: PointKind) -> Result<OwnedFd, String> {
    match open_in(root, path) {
        Ok(found) => {
            let mode = fstat(&found).map_err(|e| e.to_string())?.st_mode;
            let is_dir = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            match (kind, is_dir) {
                (PointKind::Directory, false) => Err("is a file, a directory is mounted".into()),
                (PointKind::File, true) => Err("is a directory, a file is mounted".into()),
                _ => Ok(found),
            }
        }
        Err(Errno::ENOENT) => create(root, path, kind)
            .map_err(|e| format!("the image has no such path, and creating it failed: {e}")),
        Err(errno) => Err(errno.to_string()),
    }
}

fn create(root: &OwnedFd, path: &Path, kind: PointKind) -> Result<OwnedFd, Errno> {
    let parent = open_in(root, path.parent().unwrap_or(Path::new(".")))?;
    let name = path.file_name().ok_or(Errno::EINVAL)?;
    match kind {
        PointKind::Directory => mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?,
        PointKind::File => {
            // O_EXCL: a dangling link in the image must not be followed.
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            drop(openat(
                &parent,
                name,
                flags,
                Mode::from_bits_truncate(0o644),
            )?);
        }
    }
    open_in(root, path)
}

/// The path of a place, with no link in it.
///
/// # Errors
/// Without a `/proc`.
pub fn real_path(fd: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn missing_directories_are_made() {
        let root = tempfile::tempdir().expect("temp dir");
        let point = mount_point(root.path(), Path::new("/a/b/c"), PointKind::Directory)
            .expect("mount point")
            .0;
        assert_eq!(point, Path::new("/a/b/c"));
        assert!(root.path().join("a/b/c").is_dir());
    }

    #[test]
    fn a_missing_file_is_made_empty() {
        let root = tempfile::tempdir().expect("temp dir");
        mount_point(root.path(), Path::new("/etc/hosts"), PointKind::File).expect("mount point");
        assert_eq!(
            fs::read(root.path().join("etc/hosts")).expect("file").len(),
            0
        );
    }

    #[test]
    fn an_absolute_link_stays_inside() {
        let root = tempfile::tempdir().expect("temp dir");
        fs::create_dir(root.path().join("real")).expect("dir");
        symlink("/real", root.path().join("data")).expect("link");
        let point = mount_point(root.path(), Path::new("/data/x"), PointKind::Directory)
            .expect("mount point")
            .0;
        assert_eq!(point, Path::new("/real/x"));
    }

    #[test]
    fn a_link_to_the_host_never_reaches_it() {
        let root = tempfile::tempdir().expect("temp dir");
        let outside = tempfile::tempdir().expect("temp dir");
        symlink(outside.path(), root.path().join("data")).expect("link");
        let result = mount_point(root.path(), Path::new("/data/x"), PointKind::Directory);
        assert!(result.is_err(), "{result:?}");
        assert_eq!(fs::read_dir(outside.path()).expect("dir").count(), 0);
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let root = tempfile::tempdir().expect("temp dir");
        symlink("/nowhere", root.path().join("hosts")).expect("link");
        assert!(mount_point(root.path(), Path::new("/hosts"), PointKind::File).is_err());
    }

    #[test]
    fn a_file_under_a_directory_mount_is_an_error() {
        let root = tempfile::tempdir().expect("temp dir");
        fs::write(root.path().join("data"), "x").expect("file");
        let error = mount_point(root.path(), Path::new("/data"), PointKind::Directory)
            .expect_err("wrong kind");
        assert!(error.to_string().contains("/data"), "{error}");
    }

    #[test]
    fn parent_steps_and_the_root_are_refused() {
        let root = tempfile::tempdir().expect("temp dir");
        for bad in ["/../x", "/a/../../x", "/", ""] {
            assert!(
                mount_point(root.path(), Path::new(bad), PointKind::Directory).is_err(),
                "{bad}"
            );
        }
    }
}
