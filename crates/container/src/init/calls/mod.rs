//! The system calls that a guest's process may make: seccomp(2).
//!
//! Wasm is the first wall: a guest has no system calls. This is one of those
//! behind it, for the day when the first has a hole: the process that runs the
//! guest is left with what running guests takes. The [`list`] argues each call,
//! and `docs/security.md` repeats it. The pod's own profile comes on top; the
//! kernel takes the strictest answer of all.
//!
//! A call that is not on the list fails with EPERM. One that only an intruder
//! makes ends the process by SIGSYS.

mod list;
mod program;

use std::io;

use libc::{sock_filter, sock_fprog};
use wisp_capability::{Grant, Scheme};
use wisp_engine::World;

use self::list::calls;
use crate::error::ContainerError;

/// What a guest needs beside what all need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// It has a socket that listens for HTTP.
    pub server: bool,
    /// It connects, or may: by TCP or UDP.
    pub connects: bool,
    /// It listens with sockets of its own.
    pub listens: bool,
}

impl Needs {
    /// Those of a guest with this grant and this world.
    pub fn of(grant: &Grant, world: World) -> Self {
        Self {
            server: matches!(world, World::Http(_)),
            connects: !grant.outbound.is_empty(),
            listens: grant.listen.uses(Scheme::Tcp) || grant.listen.uses(Scheme::Udp),
        }
    }

    fn any(self) -> bool {
        self.server || self.connects || self.listens
    }
}

/// Leaves this process, for good, what a guest with these needs takes. Sets
/// no_new_privs.
///
/// # Errors
/// The kernel's refusal.
pub fn leave(needs: Needs) -> Result<(), ContainerError> {
    let rules: Vec<_> = calls()
        .filter(|call| call.group.is_for(needs))
        .map(|call| (call.number, call.answer))
        .collect();
    program::assemble(rules)
        .ok_or_else(|| io::Error::other("the list is too long for a program"))
        .and_then(|program| install(&program))
        .map_err(|e| ContainerError::Init(format!("limit the guest's system calls: {e}")))
}

fn install(program: &[sock_filter]) -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let filter = sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` names as many instructions as there are, the kernel only
    // reads them, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
