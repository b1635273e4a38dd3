//! Who may have an instance when not all can.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of requests at once, and a queue of those that wait for one to end.
pub struct Turns {
    free: Arc<Semaphore>,
    waiting: AtomicU32,
    queue: u32,
}

/// As long as this lives, a request is being worked on.
pub type Turn = OwnedSemaphorePermit;

impl Turns {
    pub fn new(at_once: u32, queue: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(at_once as usize)),
            waiting: AtomicU32::new(0),
            queue,
        }
    }

    /// Waits for a turn, in order; `None` where the queue is full, or still
    /// none has come after `patience`.
    pub async fn take(&self, patience: Duration) -> Option<Turn> {
        if let Ok(turn) = self.free.clone().try_acquire_owned() {
            return Some(turn);
        }
        let before = self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.queue {
            return None;
        }
        tokio::time::timeout(patience, self.free.clone().acquire_owned())
            .await
            .ok()?
            .ok()
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn one_waits_for_a_turn_and_the_next_is_turned_away() {
        let turns = Arc::new(Turns::new(1, 1));
        let first = turns.take(LONG).await.expect("free");
        let waits = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(LONG).await.is_some() }
        });
        while turns.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(turns.take(LONG).await.is_none(), "the queue is full");
        drop(first);
        assert!(waits.await.expect("task"));
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_queue() {
        let turns = Turns::new(1, 1);
        let _first = turns.take(LONG).await.expect("free");
        assert!(turns.take(Duration::from_millis(1)).await.is_none());
        assert_eq!(turns.waiting(), 0);
    }
}
