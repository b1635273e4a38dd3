//! The container's cgroup, of either version and either driver.

mod files;
mod freezer;
mod initial;
mod join;
mod limit_file;
mod limits;
mod membership;
mod oom;
mod scope;
mod systemd;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupSetup, create_cgroup_manager, get_cgroup_setup,
};
use nix::errno::Errno;
use nix::sys::signal::kill;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

pub use self::files::Version;
pub use self::limit_file::CpuFiles;
pub(crate) use self::membership::{Forked, Membership};
pub use self::oom::{OomWatch, Seen};
use crate::error::{ContainerError, chain};

/// How often a cgroup is looked at again for processes that were forked since.
const ROUNDS: usize = 5;
/// How long killed processes may take to leave their cgroup.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which cgroup a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    path: PathBuf,
    systemd: bool,
    id: String,
}

impl Cgroup {
    /// The cgroup that `spec` asks for. `linux.cgroupsPath` of the form
    /// `slice:prefix:name` is systemd's; without systemd (cgroup v1) it is
    /// translated to the path systemd would use.
    pub fn of(spec: &Spec, id: &str) -> Self {
        let asked = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().clone())
            .unwrap_or_else(|| PathBuf::from("/").join(id));
        let unified = matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified));
        match split_systemd(&asked) {
            Some(_) if unified => Self::new(asked, true, id),
            Some((slice, prefix, name)) => {
                Self::new(systemd_as_path(slice, prefix, name), false, id)
            }
            None => Self::new(asked, false, id),
        }
    }

    fn new(path: PathBuf, systemd: bool, id: &str) -> Self {
        Self {
            path,
            systemd,
            id: id.to_owned(),
        }
    }

    /// The path for the spec that libcontainer is given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether systemd manages it.
    pub fn systemd(&self) -> bool {
        self.systemd
    }

    /// libcgroups' manager, for what only it can do while a container is made.
    /// With systemd it has a connection that it never closes: not for a process
    /// that goes on.
    fn manager(&self) -> Result<AnyCgroupManager, ContainerError> {
        create_cgroup_manager(CgroupConfig {
            cgroup_path: self.path.clone(),
            systemd_cgroup: self.systemd,
            container_name: self.id.clone(),
        })
        .map_err(|error| self.error("find the cgroup of", &error))
    }

    pub(crate) fn error(
        &self,
        what: &'static str,
        error: &dyn std::error::Error,
    ) -> ContainerError {
        ContainerError::Library {
            what,
            id: self.id.clone(),
            reason: chain(error),
        }
    }

    /// All processes in the cgroup and below, in the daemon's pid namespace;
    /// none if there is no such cgroup.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>, ContainerError> {
        let mut pids = BTreeSet::new();
        // Of version 1, all: a process enters one hierarchy after the other.
        for dir in self.dirs() {
            tree::pids(&dir, &mut pids)
                .map_err(|error| self.error("list the processes of", &error))?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Kills whatever is in the cgroup and removes it; none there is fine.
    ///
    /// # Errors
    /// When it does not go away within two seconds, or systemd's scope within
    /// seven.
    pub fn remove(&self) -> Result<(), ContainerError> {
        if self.systemd {
            self.end_scope()?;
        }
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(100);
        loop {
            // A process that is being forked into it shows up between two looks.
            self.kill_all(libc::SIGKILL)?;
            match self.remove_now() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                // Killed processes take a while to die, on a busy node longer.
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn remove_now(&self) -> Result<(), ContainerError> {
        for dir in self.dirs() {
            tree::remove(&dir).map_err(|error| self.error("remove the cgroup of", &error))?;
        }
        Ok(())
    }

    /// Sends `signal` to every process in the cgroup. SIGKILL is repeated
    /// until none is left that was forked meanwhile.
    ///
    /// # Errors
    /// When the cgroup cannot be read or the kernel refuses.
    pub fn kill_all(&self, signal: i32) -> Result<(), ContainerError> {
        let rounds = if signal == libc::SIGKILL { ROUNDS } else { 1 };
        for _ in 0..rounds {
            let pids = self.pids()?;
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                send(pid, signal).map_err(|errno| self.error("signal", &errno))?;
            }
        }
        Ok(())
    }
}

/// Sends `signal` (any number, also real-time ones) to one process or, if `pid`
/// is negative, to a process group; one that is gone already is fine.
///
/// # Errors
/// The kernel's refusal, such as EINVAL for a signal that does not exist.
pub fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    let pid = nix::unistd::Pid::from_raw(pid);
    let sent = match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => kill(pid, known),
        // nix knows no real-time signals.
        // SAFETY: kill takes plain integers and touches no memory of ours.
        Err(_) => Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop),
    };
    match sent {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}

/// `slice:prefix:name`, the systemd driver's form of `linux.cgroupsPath`.
fn split_systemd(path: &Path) -> Option<(&str, &str, &str)> {
    // No unit's name has a slash; with one it is a path, whatever else it has.
    let path = path.to_str().filter(|path| !path.contains('/'))?;
    let mut parts = path.split(':');
    let split = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(split)
}

/// Where systemd would put the scope `prefix-name` of `slice`: a slice named
/// `a-b.slice` is inside `a.slice` (systemd.slice(5)).
fn systemd_as_path(slice: &str, prefix: &str, name: &str) -> PathBuf {
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    let mut path = PathBuf::from("/");
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    if stem != "-" {
        let mut grown = String::new();
        for part in stem.split('-') {
            if !grown.is_empty() {
                grown.push('-');
            }
            grown.push_str(part);
            path.push(format!("{grown}.slice"));
        }
    }
    path.push(if name.ends_with(".slice") {
        name.to_owned()
    } else {
        format!("{prefix}-{name}.scope")
    });
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systemd_path_is_told_from_a_plain_one() {
        assert_eq!(
            split_systemd(Path::new("kubepods.slice:cri-containerd:abc")),
            Some(("kubepods.slice", "cri-containerd", "abc"))
        );
        assert_eq!(split_systemd(Path::new("/default/abc")), None);
        assert_eq!(split_systemd(Path::new("../a.slice:b:c")), None);
        assert_eq!(split_systemd(Path::new("a:b")), None);
        assert_eq!(split_systemd(Path::new("a:b:c:d")), None);
    }

    #[test]
    fn a_scope_of_systemd_is_a_directory_like_any_other() {
        let cgroup = Cgroup::new("a-b.slice:cri:1".into(), true, "1");
        assert_eq!(
            cgroup.plain_path(),
            Path::new("/a.slice/a-b.slice/cri-1.scope")
        );
        let plain = Cgroup::new("/a-b.slice".into(), false, "1");
        assert_eq!(plain.plain_path(), Path::new("/a-b.slice"));
    }

    #[test]
    fn slices_nest_by_their_dashes() {
        assert_eq!(
            systemd_as_path("kubepods-burstable-pod1.slice", "cri", "abc"),
            Path::new(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-abc.scope"
            )
        );
        assert_eq!(
            systemd_as_path("-.slice", "cri", "abc"),
            Path::new("/cri-abc.scope")
        );
        assert_eq!(
            systemd_as_path("", "p", "n"),
            Path::new("/system.slice/p-n.scope")
        );
    }

    #[test]
    fn a_signal_to_nobody_is_fine_and_a_bad_signal_is_not() {
        assert_eq!(send(i32::MAX - 1, libc::SIGTERM), Ok(()));
        let own = i32::try_from(std::process::id()).expect("pid");
        assert_eq!(send(own, 4096), Err(Errno::EINVAL));
        assert_eq!(send(own, 0), Ok(()));
    }
}
