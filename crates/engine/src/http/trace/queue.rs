//! Spans that wait to be exported. Each thread has a place of its own to put them:
//! who serves requests waits for nobody but the exporter, which takes what is there
//! now and then.

use std::fmt::Write;
use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::span::Span;
use crate::http::metrics::{Number, head};

/// All that wait.
pub struct Queue {
    places: Mutex<Vec<Arc<Place>>>,
    waiting: AtomicUsize,
    capacity: usize,
    batch: usize,
    /// There is a batch.
    filled: Notify,
    closed: AtomicBool,
    pub counts: Counts,
}

/// A thread's.
#[derive(Default)]
pub struct Place(Mutex<Vec<Span>>);

/// What became of spans.
#[derive(Default)]
pub struct Counts {
    pub exported: Number,
    /// There was no room for them.
    pub overflowed: Number,
    /// The collector did not take them.
    pub failed: Number,
}

impl Queue {
    /// For `capacity` spans, of which `batch` are exported at once.
    pub fn new(capacity: usize, batch: usize) -> Self {
        Self {
            places: Mutex::default(),
            waiting: AtomicUsize::new(0),
            capacity,
            batch,
            filled: Notify::new(),
            closed: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// A place for another thread.
    pub fn place(&self) -> Arc<Place> {
        let place = Arc::new(Place::default());
        self.places().push(place.clone());
        place
    }

    /// Puts `span` to those that wait, if there is room for one more.
    pub fn push(&self, place: &Place, span: Span) {
        let before = self.waiting.fetch_add(1, Relaxed);
        if before >= self.capacity {
            self.waiting.fetch_sub(1, Relaxed);
            self.counts.overflowed.add(1);
            return;
        }
        place.spans().push(span);
        if before + 1 == self.batch {
            self.filled.notify_one();
        }
    }

    /// As many as are exported at once, those of each thread in their order.
    pub fn take(&self) -> Vec<Span> {
        let mut places = self.places();
        let mut taken = Vec::new();
        for place in &*places {
            let mut spans = place.spans();
            let room = self.batch - taken.len();
            if spans.len() <= room {
                taken.append(&mut spans);
            } else {
                let rest = spans.split_off(room);
                taken.append(&mut mem::replace(&mut *spans, rest));
            }
        }
        if !places.is_empty() {
            // Whose were taken first is last the next time.
            places.rotate_left(1);
        }
        self.waiting.fetch_sub(taken.len(), Relaxed);
        taken
    }

    /// Resolves when there is a batch.
    pub async fn filled(&self) {
        while !self.has_batch() {
            self.filled.notified().await;
        }
    }

    /// Whether there are as many as are exported at once.
    pub fn has_batch(&self) -> bool {
        self.waiting.load(Relaxed) >= self.batch
    }

    /// Nothing is exported any more.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn places(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        // Each change is whole, whoever panicked.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Appends them to the text that Prometheus reads.
    pub fn write(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _ = self.try_write(out);
    }

    fn try_write(&self, out: &mut String) -> std::fmt::Result {
        let name = "wisp_otlp_spans_exported_total";
        head(out, name, "counter", "Spans that a collector has taken")?;
        writeln!(out, "{name} {}", self.exported.get())?;
        let name = "wisp_otlp_spans_dropped_total";
        let help = "Spans that are lost: too many waited, or the collector did not take them";
        head(out, name, "counter", help)?;
        for (reason, number) in [
            ("queue_full", &self.overflowed),
            ("export_failed", &self.failed),
        ] {
            writeln!(out, "{name}{{reason=\"{reason}\"}} {}", number.get())?;
        }
        Ok(())
    }
}

impl Place {
    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        // Whole spans come and go, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::context::{SpanContext, SpanId, TraceId};
    use super::super::span::{Step, What};
    use super::*;

    fn span(number: u8) -> Span {
        Span {
            context: SpanContext {
                trace: TraceId([number; 16]),
                span: SpanId([number; 8]),
                sampled: true,
            },
            parent: None,
            state: None,
            begun: 0,
            ended: 0,
            what: What::Step(Step {
                name: "test",
                problem: None,
            }),
        }
    }

    fn take(queue: &Queue) -> Vec<u8> {
        let taken = queue.take();
        taken.iter().map(|span| span.context.span.0[0]).collect()
    }

    #[tokio::test]
    async fn spans_wait_up_to_a_number_and_leave_in_batches() {
        let queue = Queue::new(5, 2);
        let place = queue.place();
        queue.push(&place, span(1));
        let soon = Duration::from_millis(1);
        assert!(tokio::time::timeout(soon, queue.filled()).await.is_err());
        for number in 2..=7 {
            queue.push(&place, span(number));
        }
        assert_eq!(queue.counts.overflowed.get(), 2);
        queue.filled().await;
        assert_eq!(take(&queue), [1, 2]);
        assert_eq!(take(&queue), [3, 4]);
        queue.push(&place, span(8));
        queue.filled().await;
        assert_eq!(take(&queue), [5, 8]);
        assert!(take(&queue).is_empty());
    }

    #[test]
    fn no_thread_is_passed_over() {
        let queue = Queue::new(10, 2);
        let (one, other) = (queue.place(), queue.place());
        for _ in 0..4 {
            queue.push(&one, span(1));
        }
        queue.push(&other, span(2));
        assert_eq!(take(&queue), [1, 1]);
        assert_eq!(take(&queue), [2, 1]);
        assert_eq!(take(&queue), [1]);
    }
}
