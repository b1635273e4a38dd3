//! Takes the thread back, now and then, from guests that do not give it.

use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest may compute before others have a turn.
const TURN: Duration = Duration::from_millis(10);

/// Its thread only sleeps and counts.
const STACK: usize = 64 * 1024;

/// Advances the engine's epoch while a request is being served. Many requests
/// share a thread: without turns, one that computes for long would hold up
/// the others, and the signal to stop.
pub struct Ticker {
    serving: AtomicUsize,
    /// Whether the clock waits to be woken; most requests come while it does not,
    /// and to wake nobody is a system call as well.
    asleep: AtomicBool,
    /// For who waits until somebody is served.
    waits: Mutex<()>,
    started: Condvar,
}

/// A request is being served as long as this lives.
pub struct Serving(Arc<Ticker>);

impl Ticker {
    /// # Errors
    /// No thread to be had.
    pub fn start(engine: Engine) -> io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            serving: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            waits: Mutex::new(()),
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
        // Either this sees that the clock has gone to sleep, or the clock sees
        // that somebody is served: both say first and look then.
        if self.serving.fetch_add(1, SeqCst) == 0 && self.asleep.load(SeqCst) {
            drop(self.waits());
            self.started.notify_one();
        }
        Serving(self.clone())
    }

    fn wait_for_request(&self) {
        if self.serving.load(SeqCst) > 0 {
            return;
        }
        let mut waits = self.waits();
        self.asleep.store(true, SeqCst);
        // Looked at under the lock, which the first takes before it wakes us.
        while self.serving.load(SeqCst) == 0 {
            waits = self
                .started
                .wait(waits)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.store(false, SeqCst);
    }

    fn waits(&self) -> MutexGuard<'_, ()> {
        // There is nothing in it to be wrong.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, SeqCst);
    }
}
