//! The fork, and the process that waits for it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, fork, pipe2};

use super::{Missing, bounds, filter, missing, parent, verdict};
use crate::limits::CompilerLimits;

/// How much of the compiler's words is kept.
const WORDS: usize = 8 * 1024;

/// A fork about to be made.
pub(super) struct Fork {
    /// What the compiler says.
    ears: OwnedFd,
    mouth: OwnedFd,
}

/// Which side of the fork this is.
pub(super) enum Side {
    Watcher(Watcher),
    Worker(Worker),
}

/// The process that waits.
pub(super) struct Watcher {
    worker: Pid,
    ears: OwnedFd,
}

/// The process that compiles, not yet settled.
pub(super) struct Worker {
    mouth: OwnedFd,
}

impl Fork {
    pub(super) fn new() -> Result<Self, Missing> {
        // An ignored SIGCHLD, which is inherited, would keep the end from us.
        // SAFETY: sets no handler of ours.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(missing("hear of ends"))?;
        let (ears, mouth) = pipe2(OFlag::O_CLOEXEC).map_err(missing("a pipe"))?;
        Ok(Self { ears, mouth })
    }

    pub(super) fn split(self) -> Result<Side, Missing> {
        // SAFETY: this process has one thread, so its fork can do whatever it
        // could do itself.
        match unsafe { fork() }.map_err(missing("fork"))? {
            ForkResult::Parent { child } => Ok(Side::Watcher(Watcher {
                worker: child,
                ears: self.ears,
            })),
            ForkResult::Child => Ok(Side::Worker(Worker { mouth: self.mouth })),
        }
    }
}

impl Worker {
    /// The last steps: ends with the watcher, speaks to it, and can call the
    /// kernel for nothing but what compiling takes.
    pub(super) fn settle(self) -> Result<(), Missing> {
        dup2_stderr(&self.mouth).map_err(missing("speak to the watcher"))?;
        drop(self);
        // The watcher has the only end that reads.
        parent::arm()?;
        end_in_time()?;
        bounds::no_more_descriptors()?;
        filter::worker()
    }
}

/// The first process of a pid namespace does not end by a signal without a
/// handler, and an end by SIGKILL would not tell this limit from others.
fn end_in_time() -> Result<(), Missing> {
    extern "C" fn over(_: libc::c_int) {
        // SAFETY: ends the process and may be called from a handler.
        unsafe { libc::_exit(verdict::TIME_OVER) }
    }
    let action = SigAction::new(SigHandler::Handler(over), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but what is allowed in one.
    unsafe { sigaction(Signal::SIGXCPU, &action) }
        .map(drop)
        .map_err(missing("end when the time is over"))
}

impl Watcher {
    /// Waits for the compiler and says how it ended.
    pub(super) fn run(self, limits: &CompilerLimits) -> Result<(), String> {
        // The streams are the compiler's: kept open here, neither side of them
        // would see the other end.
        for fd in [0, 1] {
            // SAFETY: takes no pointers; nothing in this process uses these
            // numbers from here on.
            unsafe { libc::close(fd) };
        }
        let confined = filter::watcher();
        let words = listen(File::from(self.ears));
        let status = loop {
            match waitpid(self.worker, None) {
                Err(Errno::EINTR) => {}
                result => break result,
            }
        };
        confined.map_err(|missing| missing.to_string())?;
        let status = status.map_err(|errno| format!("wait for the compiler: {errno}"))?;
        if status == WaitStatus::Exited(self.worker, 0) {
            return Ok(());
        }
        let seconds = getrusage(UsageWho::RUSAGE_CHILDREN)
            .map(|usage| (usage.user_time() + usage.system_time()).tv_sec())
            .unwrap_or_default();
        Err(verdict::verdict(
            status,
            &plain(&words),
            u64::try_from(seconds).unwrap_or_default(),
            limits,
        ))
    }
}

/// Words without what could play tricks on a terminal: names in them are the
/// program's.
fn plain(words: &[u8]) -> String {
    String::from_utf8_lossy(words).replace(|c: char| c.is_control() && c != '\n', " ")
}

/// All that is said until nobody speaks any more, as far as it is kept.
fn listen(mut ears: File) -> Vec<u8> {
    let mut words = Vec::with_capacity(WORDS);
    let mut buffer = [0; 1024];
    loop {
        match ears.read(&mut buffer) {
            Ok(0) => return words,
            Ok(length) => {
                let room = WORDS.saturating_sub(words.len());
                words.extend_from_slice(&buffer[..length.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Without words there is still the status.
            Err(_) => return words,
        }
    }
}
