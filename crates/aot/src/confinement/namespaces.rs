//! Namespaces of its own, and an empty root.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, getegid, geteuid, pivot_root};

use super::{Missing, missing, privileges};

/// The user and the group that the compiler is, where it can choose, and that
/// it sees itself as, where it cannot.
pub(super) const NOBODY: u32 = 65534;

/// Where the empty root is mounted before it becomes the root. There is always
/// a /proc: the OOM score was written there. And nobody else sees this mount.
const PLACE: &str = "/proc";

/// Moves to new namespaces and to an empty, read-only root. Without privileges
/// that takes a user namespace, which not every system gives.
pub(super) fn enter() -> Result<(), Missing> {
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWPID;
    if privileges::has(caps::Capability::CAP_SYS_ADMIN) {
        unshare(own).map_err(missing("new namespaces"))?;
    } else {
        let (user, group) = (geteuid(), getegid());
        unshare(own | CloneFlags::CLONE_NEWUSER)
            .map_err(missing("new namespaces with a user namespace"))?;
        for (file, content) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{NOBODY} {user} 1")),
            ("gid_map", format!("{NOBODY} {group} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), content)
                .map_err(missing("map the user in the user namespace"))?;
        }
    }
    empty_root()
}

/// Replaces the root by a file system with nothing in it, which goes with the
/// namespace. Nothing of the host is mounted any more, nor can be: mounting
/// takes a capability that is dropped next.
fn empty_root() -> Result<(), Missing> {
    let none: Option<&str> = None;
    // Or unmounting would reach the host's own mounts.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(missing("keep mounts to the namespace"))?;
    mount(
        Some("none"),
        PLACE,
        Some("tmpfs"),
        MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("size=4k,nr_inodes=1,mode=0555"),
    )
    .map_err(missing("mount an empty root"))?;
    chdir(PLACE).map_err(missing("enter the empty root"))?;
    // The old root then lies on top of the new one, and goes.
    pivot_root(".", ".").map_err(missing("change to the empty root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(missing("unmount the host's files"))?;
    chdir("/").map_err(missing("enter the empty root"))
}
