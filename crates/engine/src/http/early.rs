//! What a guest has of its response's body by the time the response begins.
//!
//! Most bodies are complete a moment after the head. Sent together with it they
//! take one write to the socket instead of two or three, and have a length.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::answer::Answer;

/// In bytes; what is longer goes out as it comes.
const MOST: usize = 64 * 1024;

/// How often a guest goes on because something of a body was taken, before the
/// responses that it has begun go out.
const ROUNDS: u8 = 4;

/// Responses that a guest has begun.
#[derive(Default)]
pub struct Begun(Mutex<Vec<(Arc<Answer>, Response<WasiBody>)>>);

impl Begun {
    pub fn add(&self, answer: Arc<Answer>, response: Response<WasiBody>) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push((answer, response));
    }

    /// Polls what the guest runs in, and gives the responses that it has begun
    /// when it can go no further. Of those whose guest has failed by then nothing
    /// has been sent: they are not given.
    pub fn poll<T>(
        &self,
        context: &mut Context<'_>,
        mut guest: Pin<&mut impl Future<Output = wasmtime::Result<wasmtime::Result<T>>>>,
    ) -> Poll<wasmtime::Result<T>> {
        let mut begun = Vec::new();
        let mut rounds = ROUNDS;
        let polled = loop {
            let polled = guest.as_mut().poll(context).map(Result::flatten);
            if let Poll::Ready(Err(_)) = polled {
                return polled;
            }
            begun.extend(self.take());
            let mut more = false;
            for (_, response) in &mut begun {
                more |= response.body_mut().take(context);
            }
            rounds -= 1;
            if polled.is_ready() || !more || rounds == 0 {
                break polled;
            }
        };
        for (answer, response) in begun {
            answer.give(response.map(BodyExt::boxed_unsync));
        }
        polled
    }

    fn take(&self) -> impl Iterator<Item = (Arc<Answer>, Response<Early>)> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = mem::take(&mut *begun).into_iter();
        begun.map(|(answer, response)| (answer, response.map(Early::new)))
    }
}

/// A body of which some has been taken already.
struct Early {
    frames: VecDeque<Result<Frame<Bytes>, Error>>,
    /// What comes after them, if it is not known that nothing does.
    rest: Option<WasiBody>,
}

impl Early {
    fn new(body: WasiBody) -> Self {
        Self {
            frames: VecDeque::new(),
            rest: Some(body),
        }
    }

    /// Takes what is there, and says whether that lets the guest go on.
    fn take(&mut self, context: &mut Context<'_>) -> bool {
        let before = self.frames.len();
        while self.length() < MOST as u64
            && let Some(rest) = &mut self.rest
        {
            match Pin::new(rest).poll_frame(context) {
                Poll::Ready(Some(frame)) => self.frames.push_back(frame),
                Poll::Ready(None) => self.rest = None,
                Poll::Pending => return self.frames.len() > before,
            }
        }
        false
    }

    fn length(&self) -> u64 {
        let of = |frame: &Result<Frame<Bytes>, Error>| {
            let data = frame.as_ref().ok().and_then(Frame::data_ref);
            data.map_or(0, Bytes::len) as u64
        };
        self.frames.iter().map(of).sum()
    }

    /// Whether it is all here, and is nothing but data.
    fn is_whole(&self) -> bool {
        let is_data =
            |frame: &Result<Frame<Bytes>, Error>| frame.as_ref().is_ok_and(Frame::is_data);
        self.rest.is_none() && self.frames.iter().all(is_data)
    }
}

impl Body for Early {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let ended = |rest: &WasiBody| rest.is_end_stream();
        self.frames.is_empty() && self.rest.as_ref().is_none_or(ended)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_whole() {
            return SizeHint::with_exact(self.length());
        }
        let here = self.length();
        let rest = self.rest.as_ref().map(Body::size_hint).unwrap_or_default();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(here));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(here));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body_util::StreamBody;
    use hyper::HeaderMap;
    use tokio::sync::mpsc;

    use super::*;

    type Part = Result<Frame<Bytes>, Error>;

    fn gathered(response: Response<WasiBody>) -> Early {
        let mut early = Early::new(response.into_body());
        early.take(&mut Context::from_waker(Waker::noop()));
        early
    }

    fn channel() -> (mpsc::UnboundedSender<Part>, Response<WasiBody>) {
        let (sender, mut parts) = mpsc::unbounded_channel();
        let parts = futures_util::stream::poll_fn(move |context| parts.poll_recv(context));
        (sender, Response::new(StreamBody::new(parts).boxed_unsync()))
    }

    fn data(text: &'static str) -> Part {
        Ok(Frame::data(Bytes::from(text)))
    }

    #[tokio::test]
    async fn a_body_that_is_complete_has_a_length() {
        let (sender, response) = channel();
        for part in ["ab", "c"] {
            sender.send(data(part)).expect("sent");
        }
        drop(sender);
        let body = gathered(response);
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(body.collect().await.expect("body").to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_body_that_comes_later_is_not_waited_for() {
        let (sender, response) = channel();
        let body = gathered(response);
        assert_eq!(body.size_hint().exact(), None);
        sender.send(data("late")).expect("sent");
        drop(sender);
        assert_eq!(body.collect().await.expect("body").to_bytes(), "late");
    }

    #[tokio::test]
    async fn trailers_and_errors_come_in_their_places() {
        let (sender, response) = channel();
        sender.send(data("data")).expect("sent");
        let mut trailers = HeaderMap::new();
        trailers.insert("a", "b".parse().expect("value"));
        sender.send(Ok(Frame::trailers(trailers))).expect("sent");
        drop(sender);
        let body = gathered(response);
        assert_eq!(body.size_hint().exact(), None);
        let collected = body.collect().await.expect("body");
        assert_eq!(collected.trailers().map(HeaderMap::len), Some(1));
        assert_eq!(collected.to_bytes(), "data");

        let frames = [data("x"), Err(Error::ConnectionTerminated)];
        let frames = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let body = gathered(Response::new(frames));
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn no_more_is_kept_than_may_be() {
        let part = Bytes::from(vec![0; MOST]);
        let frames = std::iter::repeat_with(move || Ok(Frame::data(part.clone())));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let mut body = gathered(Response::new(body));
        assert_eq!(body.size_hint().exact(), None);
        assert_eq!(body.size_hint().lower(), MOST as u64);
        let frame = body.frame().await.expect("frame").expect("data");
        assert_eq!(frame.data_ref().map(Bytes::len), Some(MOST));
    }
}
