//! A root file system for somebody who only reads it.
//!
//! An overlay with an upper directory costs more than one without: making it
//! writes to the disk, and taking it away waits until the upper directory's whole
//! file system has written what anybody left there, often longer than everything
//! else in a container's life. What was in the upper directory is seen without
//! one, too: as the topmost of the lower ones.

use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::control::RootfsMount;
use crate::error::ContainerError;
use crate::mounts::mount_all;

/// Options of overlayfs that mean something only with an upper directory.
const OF_UPPER: [&str; 4] = ["workdir=", "volatile", "index=", "nfs_export="];

/// `mounts`, of which nobody writes to the last. The same, where that is no
/// overlay with an upper directory.
pub fn of(mounts: &[RootfsMount]) -> Vec<RootfsMount> {
    let mut view = mounts.to_vec();
    if let Some(last) = view.last_mut()
        && let Some(options) = without_upper(last)
    {
        last.options = options;
    }
    view
}

/// Makes what was mounted at `target` as a view the mount that it is a view of.
///
/// # Errors
/// The mount that failed.
pub fn leave(mounts: &[RootfsMount], target: &Path) -> Result<(), ContainerError> {
    let Some(last) = mounts.last().filter(|last| without_upper(last).is_some()) else {
        return Ok(());
    };
    umount2(target, MntFlags::MNT_DETACH).map_err(|source| ContainerError::Unmount {
        path: target.to_owned(),
        source,
    })?;
    mount_all(std::slice::from_ref(last), target)
}

fn without_upper(mount: &RootfsMount) -> Option<Vec<String>> {
    if mount.kind != "overlay" {
        return None;
    }
    let upper = value(mount, "upperdir=")?;
    let lower = value(mount, "lowerdir=")?;
    // Between lower directories, these would be separators. (`::` begins
    // directories of data only, which cannot come below one that is new.)
    if upper.contains([':', '\\', ',']) || lower.contains("::") {
        return None;
    }
    let options = mount.options.iter().filter_map(|option| {
        if option.starts_with("lowerdir=") {
            Some(format!("lowerdir={upper}:{lower}"))
        } else if option.starts_with("upperdir=")
            || OF_UPPER.iter().any(|name| option.starts_with(name))
        {
            None
        } else {
            Some(option.clone())
        }
    });
    Some(options.collect())
}

/// The value of an option that is there once.
fn value<'a>(mount: &'a RootfsMount, name: &str) -> Option<&'a str> {
    let mut values = mount
        .options
        .iter()
        .filter_map(|option| option.strip_prefix(name));
    let value = values.next();
    values.next().is_none().then_some(value)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> RootfsMount {
        RootfsMount {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        }
    }

    fn options(mount: RootfsMount) -> Vec<String> {
        of(&[mount])[0].options.clone()
    }

    #[test]
    fn the_upper_directory_becomes_the_topmost_lower_one() {
        let seen = options(overlay(&[
            "index=off",
            "workdir=/s/3/work",
            "upperdir=/s/3/fs",
            "lowerdir=/s/2/fs:/s/1/fs",
            "nodev",
            "userxattr",
        ]));
        assert_eq!(
            seen,
            ["lowerdir=/s/3/fs:/s/2/fs:/s/1/fs", "nodev", "userxattr"]
        );
    }

    #[test]
    fn what_cannot_be_said_so_stays_as_it_is() {
        for kept in [
            &["lowerdir=/s/2/fs:/s/1/fs"][..],
            &["upperdir=/a:b", "workdir=/w", "lowerdir=/l"],
            &["upperdir=/a", "upperdir=/b", "workdir=/w", "lowerdir=/l"],
            &["upperdir=/a", "workdir=/w", "lowerdir=/l::/data"],
        ] {
            assert_eq!(options(overlay(kept)), kept);
        }
        let bind = RootfsMount {
            kind: "bind".into(),
            ..overlay(&["upperdir=/a", "lowerdir=/l", "rbind"])
        };
        assert_eq!(options(bind), ["upperdir=/a", "lowerdir=/l", "rbind"]);
        assert!(of(&[]).is_empty());
    }
}
