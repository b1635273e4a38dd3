//! Where a container's files are, and how they go away.

use std::io;
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use log::warn;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use oci_spec::runtime::Spec;

use crate::cgroup::Cgroup;
use crate::error::ContainerError;
use crate::hooks::{self, Moment};

/// An OCI bundle as containerd lays it out, and wisp's own folder inside it.
///
/// Everything wisp keeps for a container lives in `<bundle>/wisp`, so that
/// removing the bundle removes it too.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
}

impl Bundle {
    /// The bundle at `path`, an absolute path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The bundle itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The OCI runtime spec that containerd wrote.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// Where the image's root file system is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// wisp's own folder: the bundle that libcontainer is given.
    pub fn own(&self) -> PathBuf {
        self.path.join("wisp")
    }

    /// The directory that becomes `/` of a Wasm container's process.
    pub fn jail(&self) -> PathBuf {
        self.own().join("jail")
    }

    /// The settings that a guest's container was made by, if there were any.
    pub fn settings(&self) -> PathBuf {
        self.own().join("settings.json")
    }

    /// libcontainer's state directory of all containers of this bundle (one).
    pub fn state(&self) -> PathBuf {
        self.own().join("state")
    }

    /// Makes a directory in the bundle, and those between. Not the bundle itself:
    /// whoever has given up a creation may have removed it meanwhile.
    ///
    /// # Errors
    /// When it cannot be made; that it exists is fine.
    pub fn create_dir(&self, path: &Path) -> Result<(), ContainerError> {
        let mut made = self.path.clone();
        for part in path.strip_prefix(&self.path).unwrap_or(path) {
            made.push(part);
            match std::fs::create_dir(&made) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(ContainerError::Io {
                        what: "create",
                        path: made,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn container(&self, id: &str) -> Result<Option<Container>, ContainerError> {
        let dir = self.state().join(id);
        if !dir.join("state.json").exists() {
            return Ok(None);
        }
        Container::load(dir)
            .map(Some)
            .map_err(|source| ContainerError::library("load the state of", id, source))
    }

    /// Lets the container's waiting init process go, and runs the spec's
    /// `poststart` hooks.
    ///
    /// # Errors
    /// When the container is not in the `created` state or a hook fails.
    pub fn start(&self, id: &str) -> Result<(), ContainerError> {
        let mut container = self
            .container(id)?
            .ok_or_else(|| ContainerError::NoState(self.state().join(id)))?;
        container
            .start()
            .map_err(|source| ContainerError::library("start", id, source))
    }

    /// Removes a container whose creation was cut short at any point: kills
    /// what is in its cgroup, whether libcontainer knows of it or not, and
    /// removes everything.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed anyway.
    pub fn abandon(&self, id: &str) -> Result<(), ContainerError> {
        match Spec::load(self.config()) {
            // Without wisp's own folder nothing was put into a cgroup yet.
            Ok(spec) => self.abandon_as(id, &spec, self.own().exists()),
            // Without it nobody knows of a cgroup; what is here still goes.
            Err(_) => self.remove_files(),
        }
    }

    /// As [`Self::abandon`], for a container whose bundle somebody else may be
    /// removing, or has removed: its spec is at `spec` as well. `begun` says
    /// whether there ever was a container by it.
    ///
    /// # Errors
    /// When the spec cannot be read, or the first thing that could not be removed.
    pub fn abandon_orphan(&self, id: &str, spec: &Path, begun: bool) -> Result<(), ContainerError> {
        let spec = Spec::load(spec).map_err(|error| ContainerError::Spec {
            path: spec.to_owned(),
            reason: error.to_string(),
        })?;
        self.abandon_as(id, &spec, begun)
    }

    fn abandon_as(&self, id: &str, spec: &Spec, begun: bool) -> Result<(), ContainerError> {
        let cgroup = Cgroup::of(spec, id);
        let emptied = if begun { cgroup.remove() } else { Ok(()) };
        let is_guest = !self.state().exists();
        let removed = self.remove(id, &cgroup);
        if begun
            && is_guest
            && let Err(error) = hooks::run(spec, Moment::Poststop, id, None, self)
        {
            warn!("container {id}: {error}");
        }
        removed.and(emptied)
    }

    /// Runs the hooks of a guest's container; libcontainer runs those of native
    /// ones. A hook that fails at these moments changes nothing (runtime spec,
    /// "Lifecycle").
    pub fn run_hooks(&self, id: &str, moment: Moment, pid: Option<i32>) {
        let result = Spec::load(self.config())
            .map_err(|error| ContainerError::Spec {
                path: self.config(),
                reason: error.to_string(),
            })
            .and_then(|spec| hooks::run(&spec, moment, id, pid, self));
        if let Err(error) = result {
            warn!("container {id}: {error}");
        }
    }

    /// Removes what a stopped (or dead) container left: its processes, cgroup,
    /// state and mounts. Safe to call again and after a crash at any point.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed anyway.
    pub fn remove(&self, id: &str, cgroup: &Cgroup) -> Result<(), ContainerError> {
        let mut first = None;
        match self.container(id) {
            Ok(Some(mut container)) => {
                // libcontainer would ask systemd over a connection that it never
                // closes. Without processes there is nothing left to ask.
                if cgroup.systemd() {
                    first = cgroup.remove().err();
                    container.set_systemd(false);
                }
                // What keeps libcontainer from it is mostly a process in the
                // cgroup that takes its time to die.
                if let Err(source) = container.delete(true)
                    && let Err(still) = cgroup.remove()
                {
                    warn!("container {id}: {still}");
                    first = Some(ContainerError::library("delete", id, source));
                }
            }
            Ok(None) => first = cgroup.remove().err(),
            Err(error) => first = Some(error),
        }
        let files = self.remove_files();
        first.map_or(Ok(()), Err).and(files)
    }

    /// Unmounts the root file system, where it is mounted for the host to see,
    /// and removes wisp's own folder.
    fn remove_files(&self) -> Result<(), ContainerError> {
        let unmounted = unmount(&self.rootfs()).map_err(|source| ContainerError::Unmount {
            path: self.rootfs(),
            source,
        });
        let removed = match std::fs::remove_dir_all(self.own()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ContainerError::Io {
                what: "remove",
                path: self.own(),
                source,
            }),
            _ => Ok(()),
        };
        unmounted.and(removed)
    }
}

/// Unmounts all that is mounted at `target`, topmost first; nothing mounted
/// there is fine. A busy mount is detached, so that it goes with its last user.
fn unmount(target: &Path) -> Result<(), Errno> {
    loop {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: not a mount point (any more). ENOENT: no bundle.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => {
                warn!("{} is busy, detaching it", target.display());
                umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
            }
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_an_empty_bundle_twice_is_fine() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bundle = Bundle::new(dir.path());
        let spec = serde_json::from_str(r#"{"ociVersion":"1.0.2"}"#).expect("spec");
        let cgroup = Cgroup::of(&spec, "wisp-test-of-no-container");
        bundle.remove("none", &cgroup).expect("first");
        bundle.remove("none", &cgroup).expect("second");
    }

    #[test]
    fn a_bundle_without_a_spec_is_abandoned_all_the_same() {
        let dir = tempfile::tempdir().expect("temp dir");
        let bundle = Bundle::new(dir.path());
        std::fs::create_dir_all(bundle.jail()).expect("jail");
        bundle.abandon("none").expect("abandon");
        assert!(!bundle.own().exists());
    }

    #[test]
    fn starting_without_state_names_the_missing_path() {
        let dir = tempfile::tempdir().expect("temp dir");
        let error = Bundle::new(dir.path()).start("c1").expect_err("no state");
        assert!(error.to_string().contains("wisp/state/c1"), "{error}");
    }
}
