//! Bodies that are counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::record::Record;

/// A request's body that fails where it becomes longer than it may be.
pub struct Limited {
    body: Incoming,
    limit: u64,
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl Limited {
    /// `exceeded` is set when more than `limit` bytes have come.
    pub fn new(body: Incoming, limit: u64, exceeded: Arc<AtomicBool>) -> Self {
        Self {
            body,
            limit,
            left: limit,
            exceeded,
        }
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    self.exceeded.store(true, Relaxed);
                    let error = Error::HttpRequestBodySize(Some(self.limit));
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, with the record of its request, which ends with it.
pub struct Recorded {
    body: WasiBody,
    record: Record,
}

impl Recorded {
    pub fn new(body: WasiBody, record: Record) -> Self {
        Self { body, record }
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.record
                    .sent(frame.data_ref().map_or(0, Bytes::len) as u64);
            }
            Some(Err(_)) => self.record.broken(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
