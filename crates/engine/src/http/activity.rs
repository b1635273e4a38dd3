//! What a connection is doing, and for how long.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Instant;

/// What a connection is doing. Times out nothing by itself: noting the time is
/// cheaper than setting a timer, and most requests are in time.
pub struct Activity(Mutex<State>);

struct State {
    requests: u32,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    /// When the first byte came that belongs to no request so far.
    head_since: Option<Instant>,
    /// HTTP/2 has frames that belong to no request.
    http2: bool,
}

/// What is to become of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again then.
    Fine(Instant),
    /// It has been without a request for too long.
    Idle,
    /// The head of its request takes too long.
    Slow,
}

/// As long as this lives, a request is being answered.
pub struct Busy(Arc<Activity>);

impl State {
    fn new(now: Instant) -> Self {
        Self {
            requests: 0,
            idle_since: now,
            head_since: None,
            http2: false,
        }
    }

    fn request(&mut self, http2: bool) {
        self.requests += 1;
        self.head_since = None;
        self.http2 = http2;
    }

    fn received(&mut self, now: Instant) {
        if self.requests == 0 && self.head_since.is_none() && !self.http2 {
            self.head_since = Some(now);
        }
    }

    fn ended(&mut self, now: Instant) {
        self.requests -= 1;
        self.idle_since = now;
    }

    fn check(&self, now: Instant, idle: Duration, head: Duration) -> Verdict {
        if self.requests > 0 {
            return Verdict::Fine(now + idle);
        }
        let (end, verdict) = match self.head_since {
            Some(since) => (since + head, Verdict::Slow),
            None => (self.idle_since + idle, Verdict::Idle),
        };
        if now < end {
            // A head may begin before the end of the idle time.
            Verdict::Fine(end.min(now + head))
        } else {
            verdict
        }
    }
}

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(Instant::now()))))
    }

    /// Notes the head of a request.
    pub fn request(self: &Arc<Self>, http2: bool) -> Busy {
        self.state().request(http2);
        Busy(self.clone())
    }

    /// Judges the connection: `idle` and `head` are how long it may be without
    /// a request, and take for the head of one.
    pub fn check(&self, idle: Duration, head: Duration) -> Verdict {
        self.state().check(Instant::now(), idle, head)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().ended(Instant::now());
    }
}

/// A connection whose activity is noted.
pub struct Watched<T> {
    inner: T,
    activity: Arc<Activity>,
}

impl<T> Watched<T> {
    pub fn new(inner: T, activity: Arc<Activity>) -> Self {
        Self { inner, activity }
    }
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        // The end of the connection counts as well: then nobody looks any more.
        if matches!(read, Poll::Ready(Ok(()))) {
            self.activity.state().received(Instant::now());
        }
        read
    }
}

impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);
    const HEAD: Duration = Duration::from_secs(5);

    #[test]
    fn a_connection_may_be_idle_for_a_while() {
        let start = Instant::now();
        let mut state = State::new(start);
        let check = |state: &State, now| state.check(now, IDLE, HEAD);
        assert_eq!(check(&state, start), Verdict::Fine(start + HEAD));
        assert_eq!(check(&state, start + IDLE), Verdict::Idle);
        state.request(false);
        let end = start + IDLE * 3;
        assert!(matches!(check(&state, end), Verdict::Fine(_)));
        state.ended(end);
        assert!(matches!(check(&state, end + IDLE / 2), Verdict::Fine(_)));
        assert_eq!(check(&state, end + IDLE), Verdict::Idle);
    }

    #[test]
    fn a_head_that_dribbles_in_is_too_slow_whatever_comes() {
        let start = Instant::now();
        let mut state = State::new(start);
        for second in 0..5 {
            let now = start + Duration::from_secs(second);
            state.received(now);
            assert!(matches!(state.check(now, IDLE, HEAD), Verdict::Fine(_)));
        }
        assert_eq!(state.check(start + HEAD, IDLE, HEAD), Verdict::Slow);
        state.request(false);
        state.ended(start + HEAD);
        assert!(matches!(
            state.check(start + HEAD * 2, IDLE, HEAD),
            Verdict::Fine(_)
        ));
    }

    #[test]
    fn frames_without_a_request_are_no_head() {
        let start = Instant::now();
        let mut state = State::new(start);
        state.request(true);
        state.ended(start);
        state.received(start);
        assert!(matches!(
            state.check(start + HEAD * 2, IDLE, HEAD),
            Verdict::Fine(_)
        ));
    }
}
