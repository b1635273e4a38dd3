//! What a process gives up before it runs what is not ours.
//!
//! Applied by the process to itself, in the order of the functions here: first
//! what needs the host's `/proc`, then, inside the container's namespaces and
//! root, the rest.

use std::fs;

use libcontainer::capabilities::{drop_privileges, reset_effective};
use libcontainer::syscall::syscall::create_syscall;
use nix::sys::prctl::{set_dumpable, set_keepcaps, set_no_new_privs};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setresgid, setresuid};
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process};

use crate::error::ContainerError;

/// Where a process says how early the kernel kills it when memory runs out.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Sets the resource limits and the out-of-memory score of `process` (runtime
/// spec, `process.rlimits` and `process.oomScoreAdj`). Inherited over a fork;
/// needs the host's `/proc`.
///
/// # Errors
/// The kernel's refusal, with the field's name.
pub fn limits(process: &Process) -> Result<(), ContainerError> {
    if let Some(score) = process.oom_score_adj() {
        let have = fs::read_to_string(OOM_SCORE).unwrap_or_default();
        // Writing what is there already may need a privilege that is not.
        if have.trim() != score.to_string() {
            fs::write(OOM_SCORE, score.to_string()).map_err(|e| {
                ContainerError::Unsupported(format!("process.oomScoreAdj: {score}: {e}"))
            })?;
        }
    }
    let system = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        system.set_rlimit(limit).map_err(|e| {
            ContainerError::Unsupported(format!("process.rlimits: {:?}: {e}", limit.typ()))
        })?;
    }
    Ok(())
}

/// Becomes the user of `process`, with the capabilities it lists and no other
/// (runtime spec, `process.user`, `process.capabilities`,
/// `process.noNewPrivileges`). Supplementary groups are the business of
/// [`take`](super::groups::take).
///
/// # Errors
/// The kernel's refusal.
pub fn user(process: &Process) -> Result<(), ContainerError> {
    let system = create_syscall();
    if process.no_new_privileges() == Some(true) {
        set_no_new_privs().map_err(failed("set no_new_privs"))?;
    }
    let user = process.user();
    if let Some(mask) = user.umask() {
        let mode = Mode::from_bits(mask).ok_or_else(|| {
            ContainerError::Unsupported(format!("process.user.umask: {mask:#o} is not a umask"))
        })?;
        umask(mode);
    }
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    // Kept for as long as it takes to give them up in order.
    set_keepcaps(true).map_err(failed("keep capabilities"))?;
    setresgid(gid, gid, gid).map_err(failed("change the group"))?;
    setresuid(uid, uid, uid).map_err(failed("change the user"))?;
    set_keepcaps(false).map_err(failed("stop keeping capabilities"))?;
    reset_effective(&*system).map_err(failed("take up capabilities"))?;
    let capabilities = process
        .capabilities()
        .clone()
        .unwrap_or_else(no_capabilities);
    drop_privileges(&capabilities, &*system).map_err(failed("give up capabilities"))
}

/// Keeps other processes of the same user from looking into this one, and the
/// kernel from writing its memory to a file when it dies (ptrace(2), core(5)).
///
/// # Errors
/// The kernel's refusal.
pub fn undumpable() -> Result<(), ContainerError> {
    set_dumpable(false).map_err(failed("become undumpable"))
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> ContainerError {
    move |error| ContainerError::Init(format!("{what}: {error}"))
}

/// None in any of the five sets.
pub fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(Some(Capabilities::new()));
    none.set_effective(Some(Capabilities::new()));
    none.set_inheritable(Some(Capabilities::new()));
    none.set_permitted(Some(Capabilities::new()));
    none.set_ambient(Some(Capabilities::new()));
    none
}
