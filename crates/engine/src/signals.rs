//! Signals that end the process.

use std::io;

/// Signals that ask a process to end.
const ENDING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Those that an HTTP server takes as the wish to drain.
const DRAINING: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// Makes SIGTERM, SIGINT, SIGHUP and SIGQUIT end the process at once with the
/// code 128 + number, whatever the guest is doing. As the first process of a
/// PID namespace it would not even get them otherwise.
///
/// Calls nothing but `sigaction`, so it may be called at any time; the code of
/// an HTTP server replaces what it needs.
///
/// # Errors
/// Those of `sigaction`.
pub fn install_command_signals() -> io::Result<()> {
    for signal in ENDING {
        act(signal, end as *const () as libc::sighandler_t)?;
    }
    Ok(())
}

/// Gives the signals that drain a server back to their default, so that the
/// handler installed next is the only one.
pub fn release_draining_signals() -> io::Result<()> {
    for signal in DRAINING {
        act(signal, libc::SIG_DFL)?;
    }
    Ok(())
}

extern "C" fn end(signal: libc::c_int) {
    // SAFETY: `_exit` is async-signal-safe. Output is not buffered, so there is
    // nothing to flush.
    unsafe { libc::_exit(128 + signal) }
}

fn act(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: all-zero is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // The alternate stack: the guest's own may be a small one.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `action` is initialised and outlives the call; the old action is
    // not asked for.
    if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
