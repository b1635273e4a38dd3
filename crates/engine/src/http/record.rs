//! What is remembered of a request until it is over, and then told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Request, StatusCode};
use wisp_capability::AccessLog;

use super::access_log;
use super::activity::Busy;
use super::metrics::Metrics;
use super::trace;
use crate::stdio::Output;

/// Where the end of each request is told.
pub struct Records {
    pub metrics: Arc<Metrics>,
    pub log: AccessLog,
    pub stdout: Output,
}

/// A client left before there was a response: what other servers write, too.
const NO_RESPONSE: u16 = 499;

/// One request. When it is dropped, it is over.
pub struct Record {
    records: Arc<Records>,
    begun: Instant,
    status: u16,
    sent: u64,
    broken: bool,
    details: Option<Box<Details>>,
    span: Option<Box<trace::Request>>,
    _busy: Busy,
}

/// What only the access log wants to know.
pub struct Details {
    pub time: SystemTime,
    pub client: SocketAddr,
    pub method: String,
    pub target: String,
    pub version: hyper::Version,
    pub referer: Option<String>,
    pub agent: Option<String>,
    pub trace: Option<String>,
}

/// The end of a request, for the access log.
pub struct End<'a> {
    pub details: &'a Details,
    pub status: u16,
    /// Bytes of the body.
    pub sent: u64,
    /// The body did not come to its end.
    pub broken: bool,
    pub seconds: f64,
}

impl Record {
    pub fn new<B>(
        records: &Arc<Records>,
        request: &Request<B>,
        client: SocketAddr,
        busy: Busy,
    ) -> Self {
        records.metrics.in_flight.add(1);
        let details = (records.log != AccessLog::Off).then(|| {
            Box::new(Details {
                time: SystemTime::now(),
                client,
                method: request.method().to_string(),
                target: request
                    .uri()
                    .path_and_query()
                    .map_or_else(|| request.uri().to_string(), ToString::to_string),
                version: request.version(),
                referer: text(request.headers(), &header::REFERER),
                agent: text(request.headers(), &header::USER_AGENT),
                trace: text(request.headers(), &HeaderName::from_static("traceparent")),
            })
        });
        Self {
            records: records.clone(),
            begun: Instant::now(),
            status: NO_RESPONSE,
            sent: 0,
            broken: false,
            details,
            span: None,
            _busy: busy,
        }
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Its span is `span`, by which it is then known to the access log.
    pub fn traced(&mut self, span: Option<Box<trace::Request>>) {
        if let (Some(span), Some(details)) = (&span, &mut self.details) {
            details.trace = Some(String::from_utf8_lossy(span.field().as_bytes()).into_owned());
        }
        self.span = span;
    }

    pub fn status(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }

    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    pub fn broken(&mut self) {
        self.broken = true;
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let Records {
            metrics,
            log,
            stdout,
        } = &*self.records;
        if let Some(span) = self.span.take() {
            let status = (self.status != NO_RESPONSE).then_some(self.status);
            span.end(status, self.broken);
        }
        metrics.in_flight.subtract(1);
        metrics.ended(self.status, took);
        if let Some(details) = &self.details {
            let line = access_log::line(
                *log,
                &End {
                    details,
                    status: self.status,
                    sent: self.sent,
                    broken: self.broken,
                    seconds: took.as_secs_f64(),
                },
            );
            // Where stdout is gone, nobody reads it.
            let _ = stdout.write_all(line.as_bytes());
        }
    }
}
