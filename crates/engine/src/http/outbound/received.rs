//! The body of a response, which does not wait for ever.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::Error;

use super::errors;
use super::kept::InUse;

/// How often the end of a body lets others have a turn, so that its connection
/// is there for the next request.
const TURNS: u8 = 3;

/// A response's body that fails when the next piece takes too long.
pub struct Received {
    body: Incoming,
    pause: Duration,
    /// Of the wait there is, if there is one.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Ends when the connection can be used again, or never will be.
    free: Option<oneshot::Receiver<()>>,
    turns: u8,
    _in_use: Option<InUse>,
}

impl Received {
    /// `pause` is the longest wait between two pieces.
    pub fn new(
        body: Incoming,
        pause: Duration,
        free: Option<oneshot::Receiver<()>>,
        in_use: Option<InUse>,
    ) -> Self {
        Self {
            body,
            pause,
            deadline: None,
            free,
            turns: TURNS,
            _in_use: in_use,
        }
    }

    /// The end is told only when the connection is free again, if that takes
    /// nothing but a turn: who asks one thing after another then has one
    /// connection for all of them.
    fn poll_free(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(free) = &mut self.free else {
            return Poll::Ready(());
        };
        if self.turns > 0 && Pin::new(free).poll(context).is_pending() {
            self.turns -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.free = None;
        Poll::Ready(())
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => {
                self.deadline = None;
                return Poll::Ready(Some(frame.map_err(errors::of_body)));
            }
            Poll::Ready(None) => {
                ready!(self.poll_free(context));
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        let pause = self.pause;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(pause)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.free.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
