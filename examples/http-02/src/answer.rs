//! The one response of a request, written as it comes.

use std::fmt;
use std::io::Write;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// How much is moved at a time, in bytes.
const CHUNK: u64 = 64 * 1024;

/// Why a response could not be sent to its end.
pub enum SendError {
    Stream(StreamError),
    Write(std::io::Error),
    /// The host refused to give or to finish a body.
    Body,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(e) => e.fmt(f),
            Self::Write(e) => e.fmt(f),
            Self::Body => f.write_str("the body could not be begun or finished"),
        }
    }
}

impl From<StreamError> for SendError {
    fn from(e: StreamError) -> Self {
        Self::Stream(e)
    }
}

impl From<std::io::Error> for SendError {
    fn from(e: std::io::Error) -> Self {
        Self::Write(e)
    }
}

/// A response that has not been begun.
pub struct Answer(ResponseOutparam);

impl Answer {
    pub fn new(out: ResponseOutparam) -> Self {
        Self(out)
    }

    pub fn text(self, status: u16, text: &str) -> Result<(), SendError> {
        self.bytes(status, text.as_bytes())
    }

    pub fn bytes(self, status: u16, bytes: &[u8]) -> Result<(), SendError> {
        self.send(status, |out| Ok(out.write_all(bytes)?))
    }

    /// Sends the request's body back while it arrives.
    pub fn echo(self, request: IncomingRequest) -> Result<(), SendError> {
        let body = request.consume().map_err(|()| SendError::Body)?;
        self.relay(200, body)
    }

    /// Sends another message's body on while it arrives.
    pub fn relay(self, status: u16, body: IncomingBody) -> Result<(), SendError> {
        let input = body.stream().map_err(|()| SendError::Body)?;
        self.send(status, |out| splice(&input, out))
    }

    /// Sends `n` numbered lines, each flushed.
    pub fn lines(self, n: u64) -> Result<(), SendError> {
        self.send(200, |out| {
            for line in 0..n {
                writeln!(out, "line {line}")?;
                out.flush()?;
            }
            Ok(())
        })
    }

    fn send(
        self,
        status: u16,
        write: impl FnOnce(&mut OutputStream) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let response = OutgoingResponse::new(Fields::new());
        response
            .set_status_code(status)
            .map_err(|()| SendError::Body)?;
        let body = response.body().map_err(|()| SendError::Body)?;
        ResponseOutparam::set(self.0, Ok(response));
        let mut out = body.write().map_err(|()| SendError::Body)?;
        write(&mut out)?;
        out.flush()?;
        // The stream is a child of the body and must go first.
        drop(out);
        OutgoingBody::finish(body, None).map_err(|_| SendError::Body)
    }
}

fn splice(input: &InputStream, out: &OutputStream) -> Result<(), SendError> {
    loop {
        match out.blocking_splice(input, CHUNK) {
            Ok(_) => {}
            Err(StreamError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}
