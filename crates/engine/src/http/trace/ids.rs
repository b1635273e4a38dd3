//! Numbers for traces and spans, which nobody else has.

use std::cell::RefCell;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use super::context::{SpanId, TraceId};

thread_local! {
    /// Of each thread its own, so that none waits for another. Where the kernel
    /// has no random numbers, there are no traces.
    static RANDOM: RefCell<Option<StdRng>> =
        RefCell::new(StdRng::try_from_rng(&mut SysRng).ok());
}

pub fn trace() -> Option<TraceId> {
    fresh().map(TraceId)
}

pub fn span() -> Option<SpanId> {
    fresh().map(SpanId)
}

/// A number from 0 to 1.
pub fn fraction() -> f64 {
    let bytes = fresh().unwrap_or([0; 4]);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

/// Random bytes that are not all zero: that would be no number (W3C Trace
/// Context, sections 3.2.2.3 and 3.2.2.4).
fn fresh<const N: usize>() -> Option<[u8; N]> {
    RANDOM.with_borrow_mut(|random| {
        let random = random.as_mut()?;
        let mut bytes = [0; N];
        while bytes == [0; N] {
            random.fill_bytes(&mut bytes);
        }
        Some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same_on_any_thread() {
        let some = || {
            (0..1000)
                .map(|_| span().expect("random"))
                .collect::<Vec<_>>()
        };
        let mut all = some();
        all.extend(std::thread::spawn(some).join().expect("thread"));
        all.sort_by_key(|id| id.0);
        all.dedup();
        assert_eq!(all.len(), 2000);
        assert_ne!(trace(), trace());
    }
}
