//! Pause and Resume.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::protos::api::Status;
use containerd_shim::protos::events::task::{TaskPaused, TaskResumed};
use log::warn;

use super::error::TaskError;
use super::events::Event;
use super::task::Task;

/// How long the processes of a container may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// How far Pause has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// The container is not paused.
    #[default]
    No,
    /// The kernel is stopping it.
    Pausing,
    /// It has stopped.
    Paused,
}

impl Task {
    fn lock_freeze(&self) -> MutexGuard<'_, Freeze> {
        self.freeze.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses the call `what`, for its state.
    pub fn refuse(&self, what: &'static str) -> TaskError {
        match self.status_of(self.process()).0 {
            Status::PAUSED | Status::PAUSING => TaskError::State {
                what,
                name: self.process().name().to_owned(),
                state: "paused",
            },
            _ => self.process().refuse(what),
        }
    }

    /// Stops all processes; answers when they have stopped.
    ///
    /// # Errors
    /// When it does not run, or does not stop within ten seconds; then it goes on.
    pub async fn pause(&self) -> Result<(), TaskError> {
        if self.status_of(self.process()).0 != Status::RUNNING {
            return Err(self.refuse("pause"));
        }
        *self.lock_freeze() = Freeze::Pausing;
        let stopped = match tokio::time::timeout(PATIENCE, self.stop()).await {
            Ok(stopped) => stopped,
            Err(_) => Err(TaskError::NotFrozen(self.process().name().to_owned())),
        };
        if let Err(error) = stopped {
            // A process that has been stopped is not left so.
            if let Err(still) = self.cgroup.freeze(false) {
                warn!("{still}");
            }
            *self.lock_freeze() = Freeze::No;
            return Err(error);
        }
        *self.lock_freeze() = Freeze::Paused;
        self.publisher.publish(&Event::Paused(TaskPaused {
            container_id: self.id().to_owned(),
            ..TaskPaused::default()
        }));
        Ok(())
    }

    async fn stop(&self) -> Result<(), TaskError> {
        let mut pause = Duration::from_micros(200);
        loop {
            // Asked each time: SIGKILL for all takes it back, and version 1
            // forgets processes that were just being forked.
            self.cgroup.freeze(true)?;
            if self.cgroup.is_frozen()? {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            let killed = *self.lock_freeze() != Freeze::Pausing;
            if killed || self.process().exit().is_some() {
                return Err(TaskError::Finished(self.process().name().to_owned()));
            }
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    /// When it is not paused, or the kernel refuses.
    pub fn resume(&self) -> Result<(), TaskError> {
        if self.status_of(self.process()).0 != Status::PAUSED {
            return Err(self.refuse("resume"));
        }
        self.cgroup.freeze(false)?;
        *self.lock_freeze() = Freeze::No;
        self.publisher.publish(&Event::Resumed(TaskResumed {
            container_id: self.id().to_owned(),
            ..TaskResumed::default()
        }));
        Ok(())
    }

    /// Lets a paused container die: version 1's freezer holds back even SIGKILL.
    pub fn thaw_killed(&self) {
        let was = std::mem::take(&mut *self.lock_freeze());
        if was != Freeze::No
            && let Err(error) = self.cgroup.freeze(false)
        {
            warn!("{error}");
        }
    }
}
