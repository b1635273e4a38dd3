//! What the stacks of a server's instances take.
//!
//! An instance computes on a stack of its own. A reserved one is used again by
//! another instance, and what the first has written to it stays: giving it back
//! would be a call of the kernel for each request. So all that were ever used
//! count, each as if somebody had gone as deep as guests may.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use wasmtime::{Engine, PoolingAllocatorMetrics};

/// What one can have, in bytes: 512 KiB are the guest's, whose code stops there,
/// and what its host does at the end of them takes some more.
pub const STACK: u64 = (512 + 64) << 10;

/// As many are in what the process is taken to need for itself: a command has one,
/// and a server that works on one request at a time no more.
const OWN: u64 = 1;

/// How many instances are made until all that were ever used are counted again.
/// For that, each part of the pool has to be asked, which threads would get in
/// each other's way by.
const COUNT_AGAIN: u64 = 16;

/// Those of a process.
#[derive(Default)]
pub struct Stacks {
    pool: OnceLock<Box<dyn Pool>>,
    /// How many instances were asked for.
    asked: AtomicU64,
    /// Bytes that were taken for them.
    bytes: AtomicU64,
    taking: Mutex<()>,
}

/// Where reserved stacks come from.
pub trait Pool: Send + Sync {
    /// How many are in use.
    fn in_use(&self) -> u64;

    /// How many are not, and were.
    fn used_before(&self) -> u64;
}

impl Pool for PoolingAllocatorMetrics {
    fn in_use(&self) -> u64 {
        self.stacks() as u64
    }

    fn used_before(&self) -> u64 {
        self.unused_warm_stacks().into()
    }
}

impl Stacks {
    /// Says whose they are, if they are reserved.
    pub fn count(&self, engine: &Engine) {
        if let Some(pool) = engine.pooling_allocator_metrics() {
            self.count_in(Box::new(pool));
        }
    }

    pub fn count_in(&self, pool: Box<dyn Pool>) {
        // An engine has one pool, as long as it lives.
        let _ = self.pool.set(pool);
    }

    /// Bytes that were taken for all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether they come from a pool.
    pub fn are_reserved(&self) -> bool {
        self.pool.get().is_some()
    }

    /// How many bytes those need that are in use now.
    pub fn in_use(&self) -> u64 {
        self.pool.get().map_or(0, |pool| bytes(pool.in_use()))
    }

    /// How many bytes are needed with one more in use.
    pub fn with_one_more(&self) -> u64 {
        let Some(pool) = self.pool.get() else {
            return 0;
        };
        let in_use = pool.in_use();
        let asked = self.asked.fetch_add(1, Relaxed);
        let at_least = bytes(in_use + 1);
        if at_least <= self.bytes() && !asked.is_multiple_of(COUNT_AGAIN) {
            return at_least;
        }
        // One that was used before is used again first.
        bytes(in_use + pool.used_before().max(1))
    }

    /// Raises what was taken to `wanted` bytes; `take` says whether there are so
    /// many more.
    pub fn raise(&self, wanted: u64, take: impl FnOnce(u64) -> bool) -> bool {
        if wanted <= self.bytes() {
            return true;
        }
        let _one = self.taking();
        let more = wanted.saturating_sub(self.bytes());
        let taken = more == 0 || take(more);
        if taken {
            self.bytes.fetch_add(more, Relaxed);
        }
        taken
    }

    /// Notes one that is not reserved, and goes with its instance.
    pub fn add(&self) {
        self.bytes.fetch_add(STACK, Relaxed);
    }

    /// Notes the end of one that was added.
    pub fn remove(&self) {
        self.bytes.fetch_sub(STACK, Relaxed);
    }

    fn taking(&self) -> MutexGuard<'_, ()> {
        // There is nothing in it.
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(stacks: u64) -> u64 {
    stacks.saturating_sub(OWN).saturating_mul(STACK)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Fake {
        in_use: AtomicU64,
        used_before: AtomicU64,
    }

    impl Pool for Arc<Fake> {
        fn in_use(&self) -> u64 {
            self.in_use.load(Relaxed)
        }

        fn used_before(&self) -> u64 {
            self.used_before.load(Relaxed)
        }
    }

    fn stacks(in_use: u64, used_before: u64) -> (Stacks, Arc<Fake>) {
        let pool = Arc::new(Fake {
            in_use: in_use.into(),
            used_before: used_before.into(),
        });
        let stacks = Stacks::default();
        stacks.count_in(Box::new(pool.clone()));
        (stacks, pool)
    }

    #[test]
    fn the_first_is_the_process_own() {
        let (stacks, pool) = stacks(0, 0);
        assert_eq!((stacks.in_use(), stacks.with_one_more()), (0, 0));
        pool.in_use.store(1, Relaxed);
        assert_eq!((stacks.in_use(), stacks.with_one_more()), (0, STACK));
        assert_eq!(Stacks::default().with_one_more(), 0);
    }

    #[test]
    fn one_that_was_used_counts_on_and_is_used_again() {
        let (stacks, pool) = stacks(3, 0);
        assert_eq!(stacks.with_one_more(), 3 * STACK);
        assert!(stacks.raise(3 * STACK, |_| true));
        pool.in_use.store(1, Relaxed);
        pool.used_before.store(3, Relaxed);
        assert!(stacks.with_one_more() <= 3 * STACK);
        // Other threads' are seen before long, though few are in use at once.
        pool.used_before.store(9, Relaxed);
        let most = (0..COUNT_AGAIN).map(|_| stacks.with_one_more()).max();
        assert_eq!(most, Some(9 * STACK));
    }

    #[test]
    fn what_is_taken_is_taken_once_and_stays() {
        let (stacks, _) = stacks(0, 0);
        assert!(!stacks.raise(2 * STACK, |_| false));
        assert_eq!(stacks.bytes(), 0);
        assert!(stacks.raise(2 * STACK, |more| more == 2 * STACK));
        assert!(stacks.raise(3 * STACK, |more| more == STACK));
        assert!(stacks.raise(STACK, |_| false));
        assert_eq!(stacks.bytes(), 3 * STACK);
        assert!(!stacks.raise(u64::MAX, |_| false));
    }
}
