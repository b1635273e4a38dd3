//! Clocks that tell no more than the millisecond.

use std::time::{Duration, Instant, SystemTime};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

const STEP: Duration = Duration::from_millis(1);

/// The time of day.
pub struct CoarseWall;

impl HostWallClock for CoarseWall {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        floor(now.unwrap_or_default())
    }
}

/// The time since it was made.
pub struct CoarseMonotonic(Instant);

impl CoarseMonotonic {
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl HostMonotonicClock for CoarseMonotonic {
    fn resolution(&self) -> u64 {
        nanoseconds(STEP)
    }

    fn now(&self) -> u64 {
        nanoseconds(floor(self.0.elapsed()))
    }
}

fn floor(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_in_whole_milliseconds_and_never_back() {
        let clock = CoarseMonotonic::new();
        let mut last = 0;
        while last < 5_000_000 {
            let now = clock.now();
            assert_eq!(now % 1_000_000, 0);
            assert!(now >= last);
            last = now;
        }
        assert_eq!(CoarseWall.now().subsec_nanos() % 1_000_000, 0);
        assert!(CoarseWall.now() > Duration::from_secs(1_600_000_000));
    }
}
