//! How many instances wait to be used again, in all threads together.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Places for instances without a request. The pool has as many beyond those
/// for requests, so that what waits in one thread takes nothing from another.
pub struct Spare {
    taken: AtomicU32,
    most: u32,
}

/// One of the places, as long as this lives.
pub struct Spared(Arc<Spare>);

impl Spare {
    pub fn new(most: u32) -> Self {
        Self {
            taken: AtomicU32::new(0),
            most,
        }
    }

    /// A place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Spared> {
        if self.taken.fetch_add(1, Relaxed) < self.most {
            return Some(Spared(self.clone()));
        }
        self.taken.fetch_sub(1, Relaxed);
        None
    }
}

impl Drop for Spared {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_were_said_and_they_come_back() {
        let spare = Arc::new(Spare::new(2));
        let first = spare.take().expect("one");
        let second = spare.take().expect("two");
        assert!(spare.take().is_none());
        drop(first);
        assert!(spare.take().is_some());
        drop(second);
        assert_eq!(spare.taken.load(Relaxed), 0);
    }
}
