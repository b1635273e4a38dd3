//! Ended processes: the daemon is the parent of every container's first
//! process and the foster parent of what they leave.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::debug;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Waits for children and tells who asked. Clones share the table.
#[derive(Clone, Debug, Default)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    asked: HashMap<i32, oneshot::Sender<u32>>,
    // A process can end before whoever started it has heard its pid. So ends
    // that nobody asked for are kept while something is being started, and no
    // longer: a kept pid would be taken for a later process of that number.
    ended: HashMap<i32, u32>,
    starting: usize,
}

/// While this lives, ends of processes that nobody has asked for are kept.
#[derive(Debug)]
pub struct Starting {
    reaper: Reaper,
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut table = self.reaper.lock();
        table.starting -= 1;
        if table.starting == 0 {
            table.ended.clear();
        }
    }
}

impl Reaper {
    /// Starts to wait for children.
    ///
    /// # Errors
    /// When no signal handler can be installed.
    pub fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let mut children = signal(SignalKind::child())?;
        let own = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                own.reap();
            }
        });
        Ok(reaper)
    }

    fn reap(&self) {
        loop {
            let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code.unsigned_abs()),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u32),
                Err(Errno::EINTR) => continue,
                // Nothing ended, or there are no children.
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            debug!("process {pid} ended with {status}");
            self.tell(pid.as_raw(), status);
        }
    }

    fn tell(&self, pid: i32, status: u32) {
        let mut table = self.lock();
        match table.asked.remove(&pid) {
            Some(asked) => drop(asked.send(status)),
            None if table.starting > 0 => drop(table.ended.insert(pid, status)),
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be held from before a process is started until [`Self::exit_of`] has
    /// been asked for it.
    pub fn starting(&self) -> Starting {
        self.lock().starting += 1;
        Starting {
            reaper: self.clone(),
        }
    }

    /// The exit status of process `pid`, when it ends: its code, or 128 plus
    /// the signal that killed it.
    pub fn exit_of(&self, pid: i32) -> oneshot::Receiver<u32> {
        let (tell, told) = oneshot::channel();
        let mut table = self.lock();
        match table.ended.remove(&pid) {
            Some(status) => drop(tell.send(status)),
            None => drop(table.asked.insert(pid, tell)),
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_to_who_asked_before() {
        let reaper = Reaper::default();
        let mut told = reaper.exit_of(7);
        assert!(told.try_recv().is_err());
        reaper.tell(7, 3);
        assert_eq!(told.try_recv(), Ok(3));
    }

    #[test]
    fn an_early_end_is_kept_while_something_starts_and_no_longer() {
        let reaper = Reaper::default();
        let starting = reaper.starting();
        reaper.tell(7, 137);
        reaper.tell(8, 0);
        assert_eq!(reaper.exit_of(7).try_recv(), Ok(137));
        drop(starting);
        assert!(reaper.exit_of(8).try_recv().is_err(), "another process 8");
    }

    #[test]
    fn an_end_nobody_asked_for_is_forgotten() {
        let reaper = Reaper::default();
        reaper.tell(9, 1);
        assert!(reaper.exit_of(9).try_recv().is_err());
    }
}
