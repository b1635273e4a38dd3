//! One try to hand over spans: OTLP/HTTP's request and what its answer means
//! (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use prost::Message;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::message::{Export, Exported};
use super::settings::{Encoding, Settings};
use crate::http::outbound::Client;

/// The most of an answer that is read, in bytes.
const ANSWER: usize = 64 << 10;

/// The most of a collector's words that is repeated.
const SHOWN: usize = 200;

/// How to ask the collector.
pub struct Post {
    client: Arc<Client>,
    endpoint: Uri,
    headers: HeaderMap,
    encoding: Encoding,
    gzip: bool,
    timeout: Duration,
}

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// They are there, but for so many which the collector does not want, and why.
    Taken(u64, String),
    /// It may work later, not sooner than it says.
    Again(String, Option<Duration>),
    /// It will not.
    Refused(String),
    /// The guest may not reach it, which has been told.
    Prohibited,
}

impl Post {
    pub fn new(client: Arc<Client>, settings: &Settings) -> Self {
        let mut headers = settings.headers.clone();
        let kind = match settings.encoding {
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if settings.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "wisp/",
                env!("CARGO_PKG_VERSION")
            )));
        Self {
            client,
            endpoint: settings.endpoint.clone(),
            headers,
            encoding: settings.encoding,
            gzip: settings.gzip,
            timeout: settings.timeout,
        }
    }

    /// `spans` as they are sent.
    ///
    /// # Errors
    /// What cannot be written, which does not happen.
    pub fn body(&self, spans: &Export) -> std::io::Result<Bytes> {
        let plain = match self.encoding {
            Encoding::Protobuf => spans.encode_to_vec(),
            Encoding::Json => serde_json::to_vec(spans)?,
        };
        if !self.gzip {
            return Ok(plain.into());
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&plain)?;
        Ok(encoder.finish()?.into())
    }

    /// Sends `body` once.
    pub async fn send(&self, body: Bytes) -> Answer {
        match tokio::time::timeout(self.timeout, self.exchange(body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Error::HttpRequestDenied | Error::DestinationIpProhibited)) => {
                Answer::Prohibited
            }
            Ok(Err(error)) => Answer::Again(clean(&error.to_string()), None),
            Err(_) => Answer::Again(format!("no answer within {:?}", self.timeout), None),
        }
    }

    async fn exchange(&self, body: Bytes) -> Result<Answer, Error> {
        let body = Full::new(body).map_err(|never| match never {});
        let mut request = Request::new(body.boxed_unsync());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        let options = RequestOptions {
            connect_timeout: Some(self.timeout),
            first_byte_timeout: Some(self.timeout),
            between_bytes_timeout: Some(self.timeout),
        };
        let (response, io) = self.client.clone().send(request, options).await?;
        let status = response.status();
        let after = after(response.headers(), SystemTime::now());
        // An answer may come before the request has been read.
        drop(io);
        let text = read(response).await?;
        Ok(self.judge(status, after, &text))
    }

    fn judge(&self, status: StatusCode, after: Option<Duration>, text: &[u8]) -> Answer {
        if status.is_success() {
            let partial = match self.encoding {
                Encoding::Protobuf => Exported::decode(text)
                    .ok()
                    .and_then(|all| all.partial_success),
                Encoding::Json => None,
            };
            let (rejected, why) = match partial {
                Some(partial) => (partial.rejected_spans, clean(&partial.error_message)),
                None => (0, String::new()),
            };
            return Answer::Taken(u64::try_from(rejected).unwrap_or_default(), why);
        }
        let why = format!("it answers {status}");
        match status.as_u16() {
            429 | 502 | 503 | 504 => Answer::Again(why, after),
            _ => Answer::Refused(why),
        }
    }
}

/// What `Retry-After` says: seconds, or a date.
fn after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text.trim()).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

/// The body, as far as it is not too long.
async fn read(response: Response<WasiBody>) -> Result<Vec<u8>, Error> {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if text.len() + data.len() > ANSWER {
                break;
            }
            text.extend_from_slice(&data);
        }
    }
    Ok(text)
}

/// A line stays one, whatever a collector says.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_collector_says_when_to_come_again() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let date = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(text).expect("value");
            headers.insert(header::RETRY_AFTER, value);
            after(&headers, date)
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        let later = of("Sun, 06 Nov 1994 08:49:47 GMT");
        assert_eq!(later, Some(Duration::from_secs(10)));
        let before = of("Sun, 06 Nov 1994 08:49:27 GMT");
        assert_eq!(before, Some(Duration::ZERO));
        for text in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(after(&HeaderMap::new(), date), None);
    }

    #[test]
    fn what_a_collector_says_is_one_short_line() {
        let text = clean(&format!("a\nb\u{1b}{}", "x".repeat(1000)));
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        assert_eq!(text.chars().count(), SHOWN);
    }
}
