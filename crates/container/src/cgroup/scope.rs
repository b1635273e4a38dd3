//! Putting a guest's process into a scope that systemd makes.
//!
//! systemd makes a scope only around a process that is there already. Whoever
//! has forked that is in the container's root by then, where there is neither
//! systemd nor a cgroup. So a helper is forked before, which stays outside. The
//! connection to systemd, which libcgroups never closes, ends with it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use oci_spec::runtime::LinuxResources;

use super::Cgroup;
use crate::error::ContainerError;

/// What the helper answers when all went well; otherwise it is the reason.
const DONE: &str = "+";

/// A scope that will be made, and the helper that will do it. Dropping it lets
/// the helper go.
#[derive(Debug)]
pub struct Scope {
    helper: Pid,
    socket: UnixStream,
}

impl Scope {
    /// Forks the helper, in a process with a single thread.
    ///
    /// # Errors
    /// When no process or socket is to be had.
    pub fn prepare(
        cgroup: &Cgroup,
        resources: Option<&LinuxResources>,
    ) -> Result<Self, ContainerError> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|e| ContainerError::Init(format!("socket pair: {e}")))?;
        // SAFETY: the init role has a single thread, so the child may do
        // whatever its parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                let mut scope = Self {
                    helper: child,
                    socket: ours,
                };
                drop(theirs);
                // It must have left before the root is changed.
                let mut byte = [0];
                scope
                    .socket
                    .read_exact(&mut byte)
                    .map_err(|_| ContainerError::Init("the helper for systemd ended".into()))?;
                Ok(scope)
            }
            Ok(ForkResult::Child) => {
                drop(ours);
                help(cgroup, resources, theirs);
                // SAFETY: ends the process. What runs at an exit is its
                // parent's to run.
                unsafe { libc::_exit(0) }
            }
            Err(errno) => Err(ContainerError::Init(format!("fork: {errno}"))),
        }
    }

    /// Has systemd make the scope around process `pid`, with its limits.
    ///
    /// # Errors
    /// The reason why it could not be made or limited.
    pub fn take(mut self, pid: Pid) -> Result<(), ContainerError> {
        let mut answer = String::new();
        let asked = self
            .socket
            .write_all(&pid.as_raw().to_ne_bytes())
            .and_then(|()| self.socket.read_to_string(&mut answer));
        // It has nothing to say that is not in its answer.
        let _ = waitpid(self.helper, None);
        match (asked, answer.as_str()) {
            (Ok(_), DONE) => Ok(()),
            (Ok(_), "") => Err(ContainerError::Init(
                "the helper for systemd ended without an answer".into(),
            )),
            (Ok(_), _) => Err(ContainerError::Refused(answer)),
            (Err(error), _) => Err(ContainerError::Init(format!(
                "ask systemd for the scope: {error}"
            ))),
        }
    }
}

/// The helper's life. Without a pid there is no process to help.
fn help(cgroup: &Cgroup, resources: Option<&LinuxResources>, mut socket: UnixStream) {
    // A change of the root is one for the whole mount namespace: pivot_root(2).
    if unshare(CloneFlags::CLONE_NEWNS).is_err() || socket.write_all(b"1").is_err() {
        return;
    }
    let mut pid = [0; size_of::<i32>()];
    if socket.read_exact(&mut pid).is_err() {
        return;
    }
    let done = cgroup
        .add(i32::from_ne_bytes(pid))
        .and_then(|()| resources.map_or(Ok(()), |resources| cgroup.limit(resources)));
    let answer = match done {
        Ok(()) => DONE.to_owned(),
        Err(error) => error.to_string(),
    };
    // Whoever asked has ended if it is not there to read this.
    let _ = socket.write_all(answer.as_bytes());
}
