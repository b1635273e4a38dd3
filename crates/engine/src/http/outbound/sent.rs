//! The body of a request, which may have to be sent once more.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error, WasiBody};

/// A body on its way.
pub struct Sent(Way);

enum Way {
    /// There is none.
    Nothing,
    Some(Arc<Shared>),
}

/// The same body, from the side of who gave it away.
#[derive(Clone)]
pub struct Lent(Option<Arc<Shared>>);

/// Tells how it ended: `Ok` when all of it has been handed over.
pub struct Outcome(Option<oneshot::Receiver<()>>);

struct Shared(Mutex<State>);

struct State {
    body: WasiBody,
    /// Something of it has been taken.
    begun: bool,
    /// Bytes still to come, where it said how many there are.
    left: Option<u64>,
    /// Until it has ended well.
    outcome: Option<oneshot::Sender<()>>,
}

impl Sent {
    pub fn new(body: WasiBody) -> (Self, Lent, Outcome) {
        // Nobody asks for the end of what says that it has none.
        if body.is_end_stream() || body.size_hint().exact() == Some(0) {
            return (Self(Way::Nothing), Lent(None), Outcome(None));
        }
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::new(Shared(Mutex::new(State {
            left: body.size_hint().exact(),
            body,
            begun: false,
            outcome: Some(sender),
        })));
        (
            Self(Way::Some(shared.clone())),
            Lent(Some(shared)),
            Outcome(Some(receiver)),
        )
    }

    /// Of a request that has none.
    pub fn nothing() -> Self {
        Self(Way::Nothing)
    }
}

impl Lent {
    /// The body anew, if nothing of it has been taken.
    pub fn again(&self) -> Option<Sent> {
        let Some(shared) = &self.0 else {
            return Some(Sent::nothing());
        };
        let begun = shared.state().begun;
        (!begun).then(|| Sent(Way::Some(shared.clone())))
    }
}

impl Outcome {
    /// Whether there is nothing to wait for.
    pub fn is_known(&self) -> bool {
        self.0.is_none()
    }

    /// # Errors
    /// The body was given up.
    pub async fn wait(self) -> Result<(), Error> {
        match self.0 {
            None => Ok(()),
            Some(outcome) => match outcome.await {
                Ok(()) => Ok(()),
                Err(_) => {
                    // Told at once, it would be taken for the end of the
                    // response, which is there.
                    tokio::task::yield_now().await;
                    Err(Error::ConnectionTerminated)
                }
            },
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_sent(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            // Nobody may want to know.
            let _ = outcome.send(());
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.begun = true;
                let taken = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.left = self.left.map(|left| left.saturating_sub(taken));
                // Who knows the length may not ask for the end.
                if self.left == Some(0) || self.body.is_end_stream() {
                    self.is_sent();
                }
            }
            Some(Err(_)) => self.begun = true,
            // An end without anything before it can come again.
            None => self.is_sent(),
        }
        Poll::Ready(frame)
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &self.0 {
            Way::Nothing => Poll::Ready(None),
            Way::Some(shared) => shared.state().poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Way::Nothing => true,
            Way::Some(shared) => shared.state().body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Way::Nothing => SizeHint::with_exact(0),
            Way::Some(shared) => shared.state().body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    fn text(text: &'static str) -> WasiBody {
        Full::new(Bytes::from_static(text.as_bytes()))
            .map_err(|never| match never {})
            .boxed_unsync()
    }

    /// A body that goes on and on.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"a")))))
        }
    }

    #[tokio::test]
    async fn a_body_of_which_nothing_was_taken_can_be_sent_again() {
        let (sent, lent, outcome) = Sent::new(text("all"));
        drop(sent);
        let again = lent.again().expect("untouched");
        let all = again.collect().await.expect("body").to_bytes();
        assert_eq!(all, "all");
        assert!(lent.again().is_none(), "it has been taken");
        outcome.wait().await.expect("sent");
    }

    #[tokio::test]
    async fn a_body_that_was_given_up_is_told() {
        let (mut sent, lent, outcome) = Sent::new(Endless.boxed_unsync());
        assert!(sent.frame().await.is_some());
        assert!(lent.again().is_none());
        drop((sent, lent));
        assert!(outcome.wait().await.is_err());
    }

    #[tokio::test]
    async fn a_request_without_a_body_has_nothing_to_wait_for() {
        let (sent, lent, outcome) = Sent::new(text(""));
        assert!(sent.is_end_stream() && outcome.is_known());
        assert!(lent.again().is_some());
        outcome.wait().await.expect("nothing to send");
    }
}
