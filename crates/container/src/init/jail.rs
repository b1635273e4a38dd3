//! The root of a guest's process.
//!
//! A guest cannot use `/proc`, `/sys`, `/dev` or cgroup mounts, and must not
//! see them; nor may the process take anything for its own from the image, such
//! as the configuration of name lookups. So it gets a root of its own, the
//! jail: an empty directory with the image's files at `/rootfs` and the pod's
//! volumes mounted inside those. The guest's `/` is a preopen of `/rootfs`;
//! read-only is enforced by the kernel, on the mounts.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};
use oci_spec::runtime::{Mount, Spec};
use wisp_capability::{RootAccess, Volume};

use super::attach::{Attributes, attach, mount_on, protect};
use super::places;
use crate::bundle::Bundle;
use crate::error::ContainerError;
use crate::mounts::{PointKind, mount_point, open_dir};

/// Where the image's files are inside the jail.
pub const ROOTFS: &str = "/rootfs";

/// Where, in wisp's own folder, what the image lacks for volumes is made.
const SKELETON: &str = "places";

/// What name lookups of the process itself need; a guest has no access to
/// these paths unless the same files are mounted in its own tree.
const RESOLVER_FILES: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];

/// The spec's mounts that are volumes of the pod, not kernel interfaces.
pub fn volumes(spec: &Spec) -> Vec<(Volume, Mount)> {
    spec.mounts()
        .iter()
        .flatten()
        .filter(|mount| is_volume(mount))
        .map(|mount| {
            let volume = Volume {
                destination: mount.destination().to_string_lossy().into_owned(),
                read_only: has_option(mount, "ro"),
                is_dir: point_kind(mount) == PointKind::Directory,
            };
            (volume, mount.clone())
        })
        .collect()
}

fn is_volume(mount: &Mount) -> bool {
    let destination = mount.destination();
    match mount.typ().as_deref() {
        Some("proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue" | "devpts") => return false,
        // What containerd's default spec mounts for native programs.
        Some("tmpfs")
            if ["/dev", "/dev/shm", "/run"]
                .iter()
                .any(|d| destination == Path::new(d)) =>
        {
            return false;
        }
        _ => {}
    }
    let kernel = ["/proc", "/sys", "/dev/shm", "/dev/pts", "/dev/mqueue"];
    destination != Path::new("/dev") && !kernel.iter().any(|k| destination.starts_with(k))
}

fn has_option(mount: &Mount, option: &str) -> bool {
    mount
        .options()
        .iter()
        .flatten()
        .any(|have| have.as_str() == option)
}

fn point_kind(mount: &Mount) -> PointKind {
    let is_file = mount
        .source()
        .as_ref()
        .and_then(|source| fs::metadata(source).ok())
        .is_some_and(|meta| !meta.is_dir());
    if is_file {
        PointKind::File
    } else {
        PointKind::Directory
    }
}

/// The jail, mounted and not yet entered.
#[derive(Debug)]
pub struct Jail {
    root: OwnedFd,
}

impl Jail {
    /// Mounts the jail of `bundle` with the image's files from `rootfs`. Called
    /// in a mount namespace of our own.
    ///
    /// # Errors
    /// When a volume has no place in the image's files, or a mount fails; each
    /// names the volume.
    pub fn mount(
        bundle: &Bundle,
        rootfs: &Path,
        access: RootAccess,
        volumes: &[(Volume, Mount)],
        uses_network: bool,
    ) -> Result<Self, ContainerError> {
        let dir = bundle.jail();
        let inner = dir.join(&ROOTFS[1..]);
        for path in [&dir, &inner] {
            bundle.create_dir(path)?;
            // Whatever our umask: the guest's user must be able to enter.
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(|source| {
                ContainerError::Io {
                    what: "create",
                    path: path.clone(),
                    source,
                }
            })?;
        }
        // What Wasmtime does at a fork wants one of two files. It gets this one,
        // with nothing in it; see `wisp_engine::Prepared::forked`.
        mount_point(&dir, Path::new("/dev/null"), PointKind::File)?;
        let resolver: Vec<_> = volumes
            .iter()
            .filter(|(volume, _)| {
                uses_network && RESOLVER_FILES.contains(&volume.destination.as_str())
            })
            .collect();
        for (volume, _) in &resolver {
            mount_point(&dir, Path::new(&volume.destination), PointKind::File)?;
        }

        let failed = |what: &Path, errno: Errno| ContainerError::Mount {
            source_path: what.display().to_string(),
            target: dir.clone(),
            reason: errno.to_string(),
        };
        let open = |path: &Path| open_dir(path).map_err(|e| failed(path, e));
        // A root must be a mount. Nothing in it but the image is of any use.
        attach(&dir, false, Attributes::sealed(), open(&dir)?.as_fd())
            .map_err(|e| failed(&dir, e))?;
        let skeleton = bundle.own().join(SKELETON);
        let destinations = volumes
            .iter()
            .map(|(volume, mount)| (volume.destination.as_str(), point_kind(mount)));
        let mut mounted = false;
        if access != RootAccess::Rw && places::make(rootfs, &skeleton, destinations)? {
            mounted = places::overlay(rootfs, &skeleton, &inner).map_err(|e| failed(rootfs, e))?;
        }
        if !mounted {
            attach(rootfs, false, Attributes::guest(), open(&inner)?.as_fd())
                .map_err(|e| failed(rootfs, e))?;
        }
        for (volume, mount) in volumes {
            let kind = point_kind(mount);
            let (_, place) = mount_point(&inner, Path::new(&volume.destination), kind)?;
            mount_on(mount, place.as_fd())?;
        }
        for (volume, mount) in resolver {
            let kind = PointKind::File;
            let (_, place) = mount_point(&dir, Path::new(&volume.destination), kind)?;
            let source = mount.source().clone().unwrap_or_default();
            attach(
                &source,
                false,
                Attributes::sealed().writable(false),
                place.as_fd(),
            )
            .map_err(|e| failed(&source, e))?;
        }
        if access != RootAccess::Rw {
            // Last: places for volumes may have been made in it.
            protect(open(&inner)?.as_fd()).map_err(|e| failed(rootfs, e))?;
        }
        protect(open(&dir)?.as_fd()).map_err(|e| failed(&dir, e))?;
        Ok(Self { root: open(&dir)? })
    }

    /// Makes the jail the process's root; the host's files are out of reach
    /// from here on.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn enter(self) -> Result<(), ContainerError> {
        fchdir(&self.root)
            // The old root is put under the new one, at the same place
            // (pivot_root(2), "pivot_root(".", ".")").
            .and_then(|()| pivot_root(".", "."))
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"))
            .map_err(|e| ContainerError::Init(format!("change the root: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_with(mounts: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},
                "process":{{"cwd":"/work","user":{{"uid":0,"gid":0}},"args":["app.wasm"],
                            "capabilities":{{"bounding":["CAP_NET_RAW"]}}}},
                "linux":{{"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"]}},
                "mounts":{mounts}}}"#
        ))
        .expect("spec")
    }

    const DEFAULT_MOUNTS: &str = r#"[
        {"destination":"/proc","type":"proc","source":"proc"},
        {"destination":"/dev","type":"tmpfs","source":"tmpfs"},
        {"destination":"/dev/pts","type":"devpts","source":"devpts"},
        {"destination":"/dev/shm","type":"bind","source":"/x"},
        {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup"},
        {"destination":"/run","type":"tmpfs","source":"tmpfs"},
        {"destination":"/data","type":"bind","source":"/","options":["rbind","ro"]},
        {"destination":"/dev/termination-log","type":"bind","source":"/etc/passwd","options":["rbind"]}]"#;

    #[test]
    fn only_the_pods_volumes_are_kept() {
        let found: Vec<_> = volumes(&spec_with(DEFAULT_MOUNTS))
            .into_iter()
            .map(|(volume, _)| (volume.destination, volume.read_only, volume.is_dir))
            .collect();
        assert_eq!(
            found,
            [
                ("/data".to_owned(), true, true),
                ("/dev/termination-log".to_owned(), false, false)
            ]
        );
    }
}
