//! Waiting for something to become true, with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a test waits for something that takes milliseconds on an idle
/// machine. Generous: only a failing test ever waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look. These are conditions without a descriptor to wait on.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `look` until it finds something or `patience` is over.
pub fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(INTERVAL);
    }
}
