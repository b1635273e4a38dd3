//! Hearing from the kernel that a cgroup has run out of memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{Cgroup, Version};

/// Tells when the kernel has run out of memory in a cgroup. Its descriptor is
/// readable when there may be something to [`take`](Self::take).
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    /// The file that is watched; gone when the cgroup is.
    file: PathBuf,
}

#[derive(Debug)]
enum Source {
    /// Version 1 signals each time.
    V1(EventFd),
    /// Version 2 changes a file that counts the killed.
    V2 { inotify: Inotify, killed: AtomicU64 },
}

/// What a watch has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing new.
    Nothing,
    /// Memory has run out since the last look.
    Oom,
    /// The cgroup is gone.
    Gone,
}

impl Cgroup {
    /// Watches this cgroup from now on.
    ///
    /// # Errors
    /// When there is no memory controller, no such cgroup, or descriptors or
    /// watches run out.
    pub fn watch_oom(&self) -> io::Result<OomWatch> {
        match Version::of_node() {
            Version::V1 => {
                let file = self.file("memory", "memory.oom_control")?;
                let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
                let control = std::fs::File::open(&file)?;
                // cgroup-v1/memory.rst, "OOM Control".
                let registration = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
                self.write("memory", "cgroup.event_control", &registration)?;
                Ok(OomWatch {
                    source: Source::V1(event),
                    file,
                })
            }
            Version::V2 => {
                let file = self.file("memory", "memory.events")?;
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                inotify.add_watch(&file, AddWatchFlags::IN_MODIFY)?;
                let killed = killed(&std::fs::read_to_string(&file)?);
                Ok(OomWatch {
                    source: Source::V2 {
                        inotify,
                        killed: AtomicU64::new(killed),
                    },
                    file,
                })
            }
        }
    }
}

impl OomWatch {
    /// What has happened since the last call. Never waits.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub fn take(&self) -> io::Result<Seen> {
        match &self.source {
            Source::V1(event) => match event.read() {
                // A cgroup that is removed signals, too.
                Ok(_) if !self.file.exists() => Ok(Seen::Gone),
                Ok(_) => Ok(Seen::Oom),
                Err(Errno::EAGAIN) => Ok(Seen::Nothing),
                Err(errno) => Err(errno.into()),
            },
            Source::V2 {
                inotify,
                killed: last,
            } => {
                loop {
                    match inotify.read_events() {
                        Ok(_) => {}
                        Err(Errno::EAGAIN) => break,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                let Ok(text) = std::fs::read_to_string(&self.file) else {
                    return Ok(Seen::Gone);
                };
                let now = killed(&text);
                let more = now > last.swap(now, Ordering::Relaxed);
                Ok(if more { Seen::Oom } else { Seen::Nothing })
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1(event) => event.as_fd(),
            Source::V2 { inotify, .. } => inotify.as_fd(),
        }
    }
}

impl AsRawFd for OomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// How many processes the kernel has killed, by version 2's `memory.events`.
fn killed(events: &str) -> u64 {
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_killed_are_counted_apart_from_the_rest() {
        assert_eq!(killed("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n"), 2);
        assert_eq!(killed("oom_kill_x 9\noom_group_kill 4\n"), 0);
    }
}
