//! Waiting for something to become true, with a deadline.

use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many times longer than on a usual machine everything may take: a whole
/// number in `WISP_TESTS_SLOWNESS`, for machines that are emulated.
static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    std::env::var("WISP_TESTS_SLOWNESS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(1)
        .max(1)
});

/// `patience` as it has to be on this machine. What waits here calls it, so
/// that tests say how long things take on a usual one.
pub fn here(patience: Duration) -> Duration {
    patience.saturating_mul(*SLOWNESS)
}

/// How long a test waits for something that takes milliseconds on an idle
/// machine. Generous: only a failing test ever waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look. These are conditions without a descriptor to wait on.
const INTERVAL: Duration = Duration::from_millis(10);

/// Calls `look` until it finds something or `patience` is over.
pub fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + here(patience);
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
