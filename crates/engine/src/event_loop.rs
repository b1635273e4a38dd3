//! The event loop that guests run on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Threads for what blocks: looking up names. Each has memory of its own, so a
/// guest must not get as many as it asks for.
const BLOCKING: usize = 16;

/// # Errors
/// The kernel's.
pub fn event_loop() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .build()
}
