//! Says when it began, in nanoseconds of the host's real-time clock (a guest's
//! monotonic clock begins with the guest). With the argument `idle` it then
//! stays until it is killed.

use std::io::Write;
use std::time::{Duration, SystemTime};

fn main() {
    let began = SystemTime::now();
    let nanoseconds = began
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    // Whoever reads it sees what is missing.
    let _ = writeln!(std::io::stdout(), "{nanoseconds}");
    if std::env::args().nth(1).as_deref() == Some("idle") {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}
