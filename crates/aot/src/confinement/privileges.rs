//! Environment, user, capabilities.

use std::ffi::{CStr, c_char};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use super::namespaces::NOBODY;
use super::{Confine, Missing, last, missing};

// SAFETY: the C library defines it, with this type (environ(7)).
unsafe extern "C" {
    /// environ(7).
    static mut environ: *mut *mut c_char;
}

/// Whether this process has `capability` now. One that cannot find out has not.
pub(super) fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Whether this process was started with privileges, and is not confined yet.
pub(super) fn any() -> bool {
    geteuid().is_root()
}

/// Empties the environment, and overwrites what it had: it stays on the stack,
/// where the compiler could read it.
pub(super) fn forget_environment() {
    // SAFETY: this process has one thread (see `run`), so nobody else reads or
    // changes the environment; each entry up to the null pointer is a writable
    // string that ends with a NUL, and std keeps no pointer into them.
    unsafe {
        if environ.is_null() {
            return;
        }
        let mut entry = environ;
        while !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).count_bytes();
            std::ptr::write_bytes(*entry, 0, length);
            entry = entry.add(1);
        }
        *environ = std::ptr::null_mut();
    }
}

/// Becomes nobody, without capabilities and without a way to any.
pub(super) fn drop_all(confine: Confine) -> Result<(), Missing> {
    let capability = |error: caps::errors::CapsError| std::io::Error::other(error.to_string());
    if has(Capability::CAP_SETPCAP) {
        bounding()?;
    }
    if has(Capability::CAP_SETUID) && has(Capability::CAP_SETGID) {
        become_nobody()?;
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)
            .map_err(capability)
            .map_err(missing("drop capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(missing("renounce new privileges"))?;
    prctl::set_dumpable(false).map_err(missing("forbid to look inside"))?;
    if confine == Confine::Full && any() {
        return Err(missing("become another user than root")(Errno::EPERM));
    }
    Ok(())
}

fn become_nobody() -> Result<(), Missing> {
    // A user namespace of an unprivileged user has no say in groups, and one
    // user, whom it already is.
    if geteuid().as_raw() == NOBODY && nix::unistd::getegid().as_raw() == NOBODY {
        match setgroups(&[]) {
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(missing("leave all groups")(errno)),
        }
    } else {
        setgroups(&[]).map_err(missing("leave all groups"))?;
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(group, group, group).map_err(missing("change the group"))?;
    setresuid(user, user, user).map_err(missing("change the user"))
}

/// Empties the bounding set, also of what this library does not know yet.
fn bounding() -> Result<(), Missing> {
    for number in 0..64 {
        // SAFETY: takes no pointers.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        if dropped != 0 {
            return match Errno::last() {
                // The first number that the kernel has no capability for.
                Errno::EINVAL if number > 0 => Ok(()),
                _ => Err(last("drop capabilities from the bounding set")),
            };
        }
    }
    Ok(())
}
