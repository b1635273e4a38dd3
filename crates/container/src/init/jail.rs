//! The spec that a guest's process gets instead of the container's.
//!
//! A guest cannot use `/proc`, `/sys`, devices or cgroup mounts, and must not
//! see them. So its process gets a root of its own, the jail: a `/dev` that
//! libcontainer insists on, the image's files at `/rootfs`, and the pod's
//! volumes mounted inside those. The guest's `/` is a preopen of `/rootfs`;
//! read-only is enforced by the kernel, on the mounts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder, RootBuilder, Spec};
use wisp_capability::{RootAccess, Volume};

use super::confine::no_capabilities;
use crate::bundle::Bundle;
use crate::error::ContainerError;
use crate::mounts::{PointKind, mount_point};

/// Where the image's files are inside the jail.
pub const ROOTFS: &str = "/rootfs";

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

/// Builds the jail's directories and the spec that mounts into it.
///
/// # Errors
/// When a volume has no place in the image's files.
pub fn spec(
    spec: &Spec,
    rootfs: &Path,
    bundle: &Bundle,
    access: RootAccess,
    volumes: &[(Volume, Mount)],
    uses_network: bool,
) -> Result<Spec, ContainerError> {
    let jail = bundle.jail();
    for path in [jail.clone(), jail.join("dev"), jail.join(&ROOTFS[1..])] {
        fs::create_dir_all(&path)
            // Whatever our umask: the guest's user must be able to enter.
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .map_err(|source| ContainerError::Io {
                what: "create",
                path,
                source,
            })?;
    }

    let root_mode = if access == RootAccess::Rw { "rw" } else { "ro" };
    let mut mounts = vec![
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "noexec", "mode=755", "size=64k"],
        )?,
        mount(
            ROOTFS,
            "bind",
            &rootfs.to_string_lossy(),
            &["bind", "nosuid", "nodev", root_mode],
        )?,
    ];
    for (volume, original) in volumes {
        let destination = Path::new(&volume.destination);
        let place = mount_point(rootfs, destination, point_kind(original))?;
        let mut moved = original.clone();
        moved.set_destination(inside(ROOTFS, &place));
        mounts.push(moved);
        if uses_network && RESOLVER_FILES.contains(&volume.destination.as_str()) {
            let mut again = original.clone();
            again.set_options(Some(vec!["bind".into(), "ro".into()]));
            mounts.push(again);
        }
    }

    let mut out = spec.clone();
    let invalid = |e: oci_spec::OciSpecError| ContainerError::Init(format!("derive the spec: {e}"));
    out.set_root(Some(
        RootBuilder::default()
            .path(jail)
            .readonly(true)
            .build()
            .map_err(invalid)?,
    ));
    out.set_mounts(Some(mounts));
    if let Some(process) = out.process_mut() {
        process.set_cwd(PathBuf::from("/"));
        // It has one of the host's, which init has made.
        process.set_terminal(Some(false));
        process.set_no_new_privileges(Some(true));
        process.set_apparmor_profile(None);
        process.set_capabilities(Some(no_capabilities()));
        // Taken by init already; libcontainer would need /proc for them.
        let mut user = process.user().clone();
        user.set_additional_gids(None);
        process.set_user(user);
    }
    if let Some(linux) = out.linux_mut() {
        linux.set_masked_paths(None);
        linux.set_readonly_paths(None);
        linux.set_devices(None);
        // Compiled and installed by this crate, not by libcontainer.
        linux.set_seccomp(None);
    }
    Ok(out)
}

fn inside(root: &str, place: &Path) -> PathBuf {
    Path::new(root).join(place.strip_prefix("/").unwrap_or(place))
}

fn mount(
    destination: &str,
    kind: &str,
    source: &str,
    options: &[&str],
) -> Result<Mount, ContainerError> {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|e| ContainerError::Init(format!("derive the spec: {e}")))
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

    #[test]
    fn the_jail_has_no_kernel_mounts_and_no_capabilities() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bundle = Bundle::new(dir.path());
        fs::create_dir_all(bundle.rootfs()).expect("rootfs");
        let original = spec_with(DEFAULT_MOUNTS);
        let out = spec(
            &original,
            &bundle.rootfs(),
            &bundle,
            RootAccess::Ro,
            &volumes(&original),
            true,
        )
        .expect("spec");
        let destinations: Vec<_> = out
            .mounts()
            .iter()
            .flatten()
            .map(|m| m.destination().display().to_string())
            .collect();
        assert_eq!(
            destinations,
            [
                "/dev",
                "/rootfs",
                "/rootfs/data",
                "/rootfs/dev/termination-log"
            ]
        );
        let process = out.process().as_ref().expect("process");
        let capabilities = process.capabilities().as_ref().expect("capabilities");
        assert_eq!(capabilities.bounding().as_ref().map(|c| c.len()), Some(0));
        assert_eq!(process.no_new_privileges(), Some(true));
        assert!(bundle.jail().join("rootfs").is_dir());
    }

    #[test]
    fn a_writable_root_is_mounted_so_only_when_granted() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bundle = Bundle::new(dir.path());
        fs::create_dir_all(bundle.rootfs()).expect("rootfs");
        for (access, mode) in [
            (RootAccess::Ro, "ro"),
            (RootAccess::None, "ro"),
            (RootAccess::Rw, "rw"),
        ] {
            let out = spec(
                &spec_with("[]"),
                &bundle.rootfs(),
                &bundle,
                access,
                &[],
                false,
            )
            .expect("spec");
            let mounts = out.mounts().as_ref().expect("mounts");
            assert!(has_option(&mounts[1], mode), "{access:?}");
        }
    }
}
