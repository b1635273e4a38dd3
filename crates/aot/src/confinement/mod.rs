//! The compiler's confinement: what a process gives up before it looks at the
//! first byte of a program. `docs/compiler.md` says why each.
//!
//! Two processes: the one that was started confines itself, forks, and from
//! then on only watches; its fork, the first process of a pid namespace, is the
//! compiler. So whatever ends the compiler is told in a sentence, and whatever
//! ends the watcher ends the compiler.

mod bounds;
mod filter;
mod namespaces;
mod parent;
mod privileges;
mod verdict;
mod watcher;
mod worker;

use std::io::{self, Write};
use std::str::FromStr;

use nix::errno::Errno;

use crate::limits::CompilerLimits;

/// How much of the confinement there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confine {
    /// All of it, or nothing is compiled.
    Full,
    /// What the kernel lets this process have: namespaces may be missing, and
    /// without the capability to change it the user stays. All else must be.
    Possible,
}

impl FromStr for Confine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "possible" => Ok(Self::Possible),
            _ => Err("expected `full` or `possible`".into()),
        }
    }
}

/// A part of the confinement that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct Missing {
    step: &'static str,
    source: io::Error,
}

/// For `map_err`: names what was tried.
fn missing<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Missing {
    move |source| Missing {
        step,
        source: source.into(),
    }
}

/// Compiles the program on stdin to stdout, in confinement.
///
/// Must be called before the process starts threads. The process is of no other
/// use afterwards.
///
/// # Errors
/// A sentence for whoever wants the program compiled.
pub fn run(limits: &CompilerLimits, confine: Confine) -> Result<(), String> {
    let unconfined = |missing: Missing| {
        let way_out = match confine {
            Confine::Full if !privileges::any() => {
                "; as root, or with --confine possible, it compiles all the same"
            }
            _ => "",
        };
        format!(
            "the compiler does not run without its confinement, which this system does not \
             give: {missing}{way_out}"
        )
    };
    let parent = parent::Parent::now();
    take(limits, confine).map_err(unconfined)?;
    let fork = watcher::Fork::new().map_err(unconfined)?;
    // Only now: a change of user or a fork would undo it.
    parent.die_with().map_err(unconfined)?;
    match fork.split().map_err(unconfined)? {
        watcher::Side::Watcher(watched) => watched.run(limits),
        watcher::Side::Worker(worker) => {
            let result = worker
                .settle()
                .map_err(unconfined)
                .and_then(|()| worker::run(limits));
            let code = match result {
                Ok(()) => 0,
                Err(words) => {
                    // Nobody is left to tell of a failure to tell.
                    let _ = io::stderr().write_all(words.as_bytes());
                    verdict::REFUSED
                }
            };
            std::process::exit(code)
        }
    }
}

/// Gives everything up that the watcher and the compiler both do without.
fn take(limits: &CompilerLimits, confine: Confine) -> Result<(), Missing> {
    bounds::descriptors()?;
    privileges::forget_environment();
    bounds::yield_to_others()?;
    let isolated = namespaces::enter();
    if confine == Confine::Full {
        isolated?;
    }
    privileges::drop_all(confine)?;
    bounds::limit(limits)
}

/// The last error of a system call as a [`Missing`].
fn last(step: &'static str) -> Missing {
    missing(step)(Errno::last())
}
