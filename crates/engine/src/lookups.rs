//! How many names are being looked up.
//!
//! Each waits for a thread, and whoever has asked may be gone by then: what
//! waits is no resource of the guest's any more, so it is bounded here.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::Handle;

/// At once, of all instances of this process.
const MOST: usize = 512;

/// The longest name there is (RFC 1035), with a dot at its end. In Unicode it may
/// be longer than what is sent.
const LONGEST: usize = 4 * 254;

/// Those that are under way.
#[derive(Default)]
pub struct Lookups(Arc<AtomicUsize>);

/// One of them. When it is dropped, whoever asked has the answer or has given up;
/// it ends when what was handed to threads until then has been begun, which they
/// do in order.
pub struct Lookup(Option<Counted>);

struct Counted(Arc<AtomicUsize>);

impl Lookups {
    /// Begins to look up `name`; `None` if that is none, or too many are.
    pub fn begin(&self, name: &str) -> Option<Lookup> {
        if name.len() > LONGEST || self.0.load(Relaxed) >= MOST {
            return None;
        }
        self.0.fetch_add(1, Relaxed);
        Some(Lookup(Some(Counted(self.0.clone()))))
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let counted = self.0.take();
        // Without an event loop there are no threads either.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(counted)));
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_them_and_they_end() {
        let lookups = Lookups::default();
        let mut begun: Vec<_> = (0..MOST).map(|_| lookups.begin("a.example")).collect();
        assert!(begun.iter().all(Option::is_some));
        assert!(lookups.begin("a.example").is_none());
        begun.pop();
        assert!(lookups.begin("a.example").is_some());
        assert!(lookups.begin(&"a".repeat(2000)).is_none());
    }

    #[test]
    fn those_handed_to_threads_end_after_what_was_handed_before() {
        let runtime = crate::event_loop::event_loop().expect("event loop");
        let lookups = Lookups::default();
        runtime.block_on(async {
            let slow = tokio::task::spawn_blocking(|| ());
            drop(lookups.begin("a.example").expect("begun"));
            slow.await.expect("thread");
            while lookups.0.load(Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        });
    }
}
