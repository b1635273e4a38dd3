//! Places for volumes that the image has none for.
//!
//! A runtime like runc makes them in the container's root file system, that is,
//! writes to it. Here, unless the guest may write there too, they are made in a
//! directory of the bundle, the skeleton, and the root file system is mounted
//! with that below it (overlayfs, two lower directories and no upper one): what
//! the image has comes from the image, what it lacks from the skeleton, and
//! nothing is written.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::error::ContainerError;
use crate::mounts::{PointKind, open_dir, open_in, real_path};

/// Makes in `skeleton` what `rootfs` lacks for mounts at `destinations`; answers
/// whether it lacks anything. What cannot be mounted at all (a file in the way, a
/// link that leads nowhere) is left for the mount to find.
///
/// # Errors
/// When the skeleton cannot be written.
pub fn make<'a>(
    rootfs: &Path,
    skeleton: &Path,
    destinations: impl Iterator<Item = (&'a str, PointKind)>,
) -> Result<bool, ContainerError> {
    let failed = |path: &Path, source: io::Error| ContainerError::Io {
        what: "create",
        path: path.to_owned(),
        source,
    };
    let root = open_dir(rootfs).map_err(|e| failed(rootfs, e.into()))?;
    let base = real_path(&root).map_err(|e| failed(rootfs, e))?;
    let mut lacking = false;
    for (destination, kind) in destinations {
        let Some(place) = missing(&root, &base, Path::new(destination)) else {
            continue;
        };
        lacking = true;
        let path = skeleton.join(place);
        make_one(skeleton, &path, kind).map_err(|e| failed(&path, e))?;
    }
    Ok(lacking)
}

/// Where below the root `destination` would have to be made: its existing part
/// without links, then the rest. `None` if it is there, or cannot be.
fn missing(root: &OwnedFd, base: &Path, destination: &Path) -> Option<PathBuf> {
    let names: Vec<&OsStr> = destination
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut found = PathBuf::new();
    let mut at = PathBuf::from(".");
    for (index, name) in names.iter().enumerate() {
        at.push(name);
        match open_in(root, &at) {
            Ok(there) => {
                let real = real_path(&there).ok()?;
                found = real.strip_prefix(base).ok()?.to_owned();
            }
            Err(Errno::ENOENT) => {
                found.extend(&names[index..]);
                return Some(found);
            }
            Err(_) => return None,
        }
    }
    None
}

fn make_one(skeleton: &Path, path: &Path, kind: PointKind) -> io::Result<()> {
    let dirs = match kind {
        PointKind::Directory => Some(path),
        PointKind::File => path.parent(),
    };
    if let Some(dirs) = dirs {
        fs::create_dir_all(dirs)?;
    }
    if kind == PointKind::File && fs::symlink_metadata(path).is_err() {
        File::create_new(path)?;
    }
    // Whatever our umask: the guest's user must be able to enter.
    for dir in dirs.into_iter().flat_map(Path::ancestors) {
        if dir == skeleton {
            break;
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Mounts `rootfs` with `skeleton` below it at `target`, read-only. Answers
/// false where that cannot be: file systems are stacked two deep at most, and a
/// node that is itself a container may have used that up. The places are then
/// made in the root file system, as runc would.
///
/// # Errors
/// The kernel's refusal.
pub fn overlay(rootfs: &Path, skeleton: &Path, target: &Path) -> Result<bool, Errno> {
    let mut options = b"lowerdir=".to_vec();
    escape(rootfs, &mut options);
    options.push(b':');
    escape(skeleton, &mut options);
    let mounted = mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(OsStr::from_bytes(&options)),
    );
    match mounted {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Colons separate directories, commas options (overlayfs.rst).
fn escape(path: &Path, options: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn lacks(rootfs: &Path, skeleton: &Path, destination: &str, kind: PointKind) -> bool {
        make(rootfs, skeleton, [(destination, kind)].into_iter()).expect("make")
    }

    #[test]
    fn what_the_image_lacks_is_made_beside_it() {
        let (root, skeleton) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        let (rootfs, skeleton) = (root.path(), skeleton.path());
        fs::create_dir_all(rootfs.join("etc/app")).expect("dir");
        fs::create_dir(rootfs.join("run")).expect("dir");
        fs::create_dir(rootfs.join("var")).expect("dir");
        symlink("/run", rootfs.join("var/run")).expect("link");
        let lacks = |destination, kind| lacks(rootfs, skeleton, destination, kind);

        assert!(!lacks("/etc/app", PointKind::Directory));
        assert!(lacks("/etc/hosts", PointKind::File));
        assert!(skeleton.join("etc/hosts").is_file());
        assert!(lacks("/data/deep", PointKind::Directory));
        assert!(skeleton.join("data/deep").is_dir());
        assert!(lacks("/var/run/secrets", PointKind::Directory));
        assert!(skeleton.join("run/secrets").is_dir());
        // Twice, and one in the other.
        assert!(lacks("/etc/hosts", PointKind::File));
        assert!(lacks("/data/deep/er", PointKind::File));

        let inside: Vec<_> = fs::read_dir(rootfs.join("etc")).expect("dir").collect();
        assert_eq!(inside.len(), 1, "{inside:?}");
        assert!(!rootfs.join("data").exists());
    }

    #[test]
    fn links_lead_nowhere_but_into_the_skeleton() {
        let (root, skeleton, host) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        symlink("../../../..", root.path().join("up")).expect("link");
        symlink(host.path(), root.path().join("out")).expect("link");
        for destination in ["/up/x", "/out/x", "/../x"] {
            lacks(root.path(), skeleton.path(), destination, PointKind::File);
        }
        assert_eq!(fs::read_dir(host.path()).expect("dir").count(), 0);
        assert!(skeleton.path().join("x").is_file());
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        let mut text = Vec::new();
        escape(Path::new("/a:b,c\\d"), &mut text);
        assert_eq!(text, br"/a\:b\,c\\d");
    }
}
