//! Takes the thread back, now and then, from guests that do not give it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest may compute before others have a turn.
const TURN: Duration = Duration::from_millis(10);

/// Its thread only sleeps and counts.
const STACK: usize = 64 * 1024;

/// Advances the engine's epoch while a request is being served. All requests
/// share one thread: without turns, one that computes for long would hold up
/// the others, and the signal to stop.
pub struct Ticker {
    serving: Mutex<usize>,
    started: Condvar,
}

/// A request is being served as long as this lives.
pub struct Serving(Arc<Ticker>);

impl Ticker {
    /// # Errors
    /// No thread to be had.
    pub fn start(engine: Engine) -> io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            serving: Mutex::new(0),
            started: Condvar::new(),
        });
        let own = ticker.clone();
        std::thread::Builder::new()
            .name("wisp-epoch".into())
            .stack_size(STACK)
            .spawn(move || {
                loop {
                    own.wait_for_request();
                    std::thread::sleep(TURN);
                    engine.increment_epoch();
                }
            })?;
        Ok(ticker)
    }

    /// Notes that a request is being served.
    pub fn serve(self: &Arc<Self>) -> Serving {
        *self.serving() += 1;
        self.started.notify_one();
        Serving(self.clone())
    }

    fn wait_for_request(&self) {
        let mut serving = self.serving();
        while *serving == 0 {
            serving = self
                .started
                .wait(serving)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn serving(&self) -> MutexGuard<'_, usize> {
        // A count is right whoever panicked.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        *self.0.serving() -= 1;
    }
}
