//! A body that does not wait for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error;

/// A response's body that fails when the next piece takes too long.
pub struct Impatient {
    body: Incoming,
    pause: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Impatient {
    /// `pause` is the longest wait between two pieces.
    pub fn new(body: Incoming, pause: Duration) -> Self {
        Self {
            body,
            pause,
            deadline: Box::pin(sleep(pause)),
        }
    }
}

impl Body for Impatient {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            // No overflow: a pause beyond what the clock counts is no limit.
            if let Some(next) = Instant::now().checked_add(self.pause) {
                self.deadline.as_mut().reset(next);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
