//! Joining a container by its first process.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{ForkResult, fork as fork_process, pipe2};

use crate::control::{Control, Report};
use crate::error::ContainerError;
use crate::pidfd;

/// `CLONE_NEWTIME`, which nix does not name.
const NEW_TIME: libc::c_int = 0x80;

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> ContainerError {
    move |error| ContainerError::Init(format!("join the container: {what}: {error}"))
}

/// Makes sure that the process behind a pidfd is alive: then its number has
/// meant that process up to now.
///
/// # Errors
/// When it has ended.
pub fn check_alive(first: BorrowedFd<'_>) -> Result<(), ContainerError> {
    match pidfd::is_alive(first).map_err(failed("look at its first process"))? {
        true => Ok(()),
        false => Err(ContainerError::Unsupported(
            "the container has ended".into(),
        )),
    }
}

/// The namespaces of a process that are not also this process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaces(libc::c_int);

impl Namespaces {
    /// Those of the process `pid`. A user namespace that is shared must not be
    /// joined once more, so they are compared.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(pid: i32) -> Result<Self, ContainerError> {
        let kinds = [
            ("user", libc::CLONE_NEWUSER),
            ("mnt", libc::CLONE_NEWNS),
            ("uts", libc::CLONE_NEWUTS),
            ("ipc", libc::CLONE_NEWIPC),
            ("pid", libc::CLONE_NEWPID),
            ("net", libc::CLONE_NEWNET),
            ("cgroup", libc::CLONE_NEWCGROUP),
            ("time", NEW_TIME),
        ];
        let mut flags = 0;
        for (name, flag) in kinds {
            let look = |process: &str| {
                match fs::read_link(Path::new("/proc").join(process).join("ns").join(name)) {
                    Ok(namespace) => Ok(Some(namespace)),
                    // Kernels are built without some.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(failed("read its namespaces")(error)),
                }
            };
            if look(&pid.to_string())? != look("self")? {
                flags |= flag;
            }
        }
        Ok(Self(flags))
    }

    /// Enters them, by the pidfd of the process they were read from; but for
    /// the pid namespace, which [`fork`] has chosen.
    ///
    /// # Errors
    /// When the process has ended, or the kernel refuses.
    pub fn enter(self, first: BorrowedFd<'_>) -> Result<(), ContainerError> {
        self.set(first, self.0 & !libc::CLONE_NEWPID)
    }

    fn set(self, first: BorrowedFd<'_>, flags: libc::c_int) -> Result<(), ContainerError> {
        if flags == 0 {
            return Ok(());
        }
        setns(first, CloneFlags::from_bits_retain(flags)).map_err(failed("enter its namespaces"))
    }
}

/// Which of the two processes after a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The one that was there; it has reported the other.
    Parent,
    /// The new one, which the daemon knows of.
    Child,
}

/// Forks the process that becomes the program, into the pid namespace of the
/// process `first`. It waits until the daemon has been told its pid, and ends
/// if that cannot be.
///
/// # Errors
/// When `first` has ended or no process is to be had.
pub fn fork(
    namespaces: Namespaces,
    first: BorrowedFd<'_>,
    control: &Control,
) -> Result<Forked, ContainerError> {
    check_alive(first)?;
    // Processes of the container must not reach into this one.
    set_dumpable(false).map_err(failed("become undumpable"))?;
    namespaces.set(first, namespaces.0 & libc::CLONE_NEWPID)?;
    let (wait, go): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe"))?;
    // SAFETY: this process has one thread, so the child finds nothing half-done
    // and may go on as any process does.
    match unsafe { fork_process() }.map_err(failed("fork"))? {
        ForkResult::Parent { child } => {
            drop(wait);
            control.report(&Report::Added(child.as_raw()));
            fs::File::from(go)
                .write_all(&[1])
                .map_err(failed("let it go"))?;
            Ok(Forked::Parent)
        }
        ForkResult::Child => {
            drop(go);
            let mut byte = [0];
            if fs::File::from(wait).read_exact(&mut byte).is_err() {
                // SAFETY: ends this process; nothing is left to be flushed.
                unsafe { libc::_exit(1) }
            }
            Ok(Forked::Child)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_not_joined() {
        let own = i32::try_from(std::process::id()).expect("pid");
        assert_eq!(Namespaces::of(own).expect("own"), Namespaces(0));
    }
}
