//! How the server of an HTTP component treats its clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::annotation;
use crate::limits;

/// What is wrong with which annotation.
type Problem = (&'static str, String);

/// Bounds of an HTTP server. Each has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpServer {
    /// How many requests are worked on at once, each by an instance.
    pub max_requests: u32,
    /// How many more may wait for their turn.
    pub queue: u32,
    /// How many clients may be connected.
    pub max_connections: u32,
    /// The longest head of a request, in bytes.
    pub max_header: usize,
    /// The longest body of a request, in bytes.
    pub max_body: u64,
    /// How long the guest may take to begin its response.
    pub request_timeout: Duration,
    /// How long the guest may work for one request in all: body and what it
    /// does after the response included.
    pub work_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long the head of a request may take to come in.
    pub header_timeout: Duration,
    /// How long what has begun may take to end once the server is asked to stop.
    pub grace: Duration,
    /// How many requests one instance answers in all.
    pub reuse: u32,
    /// How many of them it works on at once, if it is one of 0.3; an instance of
    /// 0.2 has one after the other.
    pub concurrency: u32,
    /// The path that the host answers by itself, for probes.
    pub health: Option<String>,
    pub access_log: AccessLog,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

/// What is written to stdout of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    #[default]
    Off,
    /// The combined log format of web servers.
    Common,
    /// One JSON object per line.
    Json,
}

impl Default for HttpServer {
    fn default() -> Self {
        Self {
            max_requests: 128,
            queue: 1024,
            max_connections: 4096,
            max_header: 64 << 10,
            max_body: 64 << 20,
            request_timeout: Duration::from_secs(60),
            work_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(75),
            header_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            reuse: 1,
            concurrency: 1,
            health: None,
            access_log: AccessLog::Off,
            metrics: None,
        }
    }
}

impl HttpServer {
    /// Reads the annotations about HTTP servers.
    ///
    /// # Errors
    /// The first that cannot be understood, and why.
    pub(crate) fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, Problem> {
        let mut server = Self::default();
        let read = Annotations(annotations);
        read.set(
            annotation::HTTP_MAX_REQUESTS,
            &mut server.max_requests,
            |text| count(text, 1, 4096),
        )?;
        read.set(annotation::HTTP_QUEUE, &mut server.queue, |text| {
            count(text, 0, 1_000_000)
        })?;
        read.set(
            annotation::HTTP_MAX_CONNECTIONS,
            &mut server.max_connections,
            |text| count(text, 1, 1_000_000),
        )?;
        read.set(annotation::HTTP_MAX_HEADER, &mut server.max_header, header)?;
        read.set(annotation::HTTP_MAX_BODY, &mut server.max_body, |text| {
            limits::amount(text)
        })?;
        for (key, time) in [
            (
                annotation::HTTP_REQUEST_TIMEOUT,
                &mut server.request_timeout,
            ),
            (annotation::HTTP_WORK_TIMEOUT, &mut server.work_timeout),
            (annotation::HTTP_IDLE_TIMEOUT, &mut server.idle_timeout),
            (annotation::HTTP_HEADER_TIMEOUT, &mut server.header_timeout),
            (annotation::HTTP_GRACE, &mut server.grace),
        ] {
            read.set(key, time, duration)?;
        }
        read.set(annotation::HTTP_REUSE, &mut server.reuse, |text| {
            count(text, 1, 1_000_000)
        })?;
        read.set(
            annotation::HTTP_CONCURRENCY,
            &mut server.concurrency,
            |text| count(text, 1, 1024),
        )?;
        read.set(annotation::HTTP_HEALTH, &mut server.health, path)?;
        read.set(
            annotation::HTTP_ACCESS_LOG,
            &mut server.access_log,
            |text| match text {
                "off" => Ok(AccessLog::Off),
                "common" => Ok(AccessLog::Common),
                "json" => Ok(AccessLog::Json),
                _ => Err("must be off, common or json".into()),
            },
        )?;
        read.set(annotation::METRICS_LISTEN, &mut server.metrics, |text| {
            text.parse()
                .map(Some)
                .map_err(|_| "is not address:port, such as 0.0.0.0:9090 or [::]:9090".into())
        })?;
        if server.concurrency > server.reuse {
            return Err((
                annotation::HTTP_CONCURRENCY,
                format!(
                    "is more than {}, which is how many requests one instance answers in all",
                    annotation::HTTP_REUSE
                ),
            ));
        }
        if server.work_timeout < server.request_timeout {
            return Err((
                annotation::HTTP_WORK_TIMEOUT,
                format!(
                    "is less than {}, which is part of it",
                    annotation::HTTP_REQUEST_TIMEOUT
                ),
            ));
        }
        Ok(server)
    }
}

struct Annotations<'a>(&'a BTreeMap<String, String>);

impl Annotations<'_> {
    fn set<T>(
        &self,
        key: &'static str,
        value: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), Problem> {
        if let Some(text) = self.0.get(key) {
            *value = parse(text.trim()).map_err(|problem| (key, problem))?;
        }
        Ok(())
    }
}

fn count(text: &str, least: u32, most: u32) -> Result<u32, String> {
    digits(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// The kernel of HTTP needs some room, and so does the node.
fn header(text: &str) -> Result<usize, String> {
    let bytes = limits::amount(text)?;
    match bytes {
        8192..=1_048_576 => Ok(bytes as usize),
        _ => Err("must be from 8Ki to 1Mi".into()),
    }
}

fn path(text: &str) -> Result<Option<String>, String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if text.starts_with('/') && text.bytes().all(allowed) {
        return Ok(Some(text.to_owned()));
    }
    Err("must be a path, such as /healthz, without a query".into())
}

/// A time as Kubernetes writes it, of one unit: `500ms`, `30s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(7 * 24 * 3600);
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    digits(number)
        .and_then(|number| number.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|time| !time.is_zero() && *time <= MOST)
        .ok_or_else(|| "must be a time up to 168h, such as 500ms, 30s, 5m or 1h".into())
}

/// A number without a sign.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<HttpServer, Problem> {
        HttpServer::parse(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        assert_eq!(
            HttpServer::parse(&BTreeMap::new()),
            Ok(HttpServer::default())
        );
    }

    #[test]
    fn annotations_set_each_bound() {
        use annotation::*;
        let of = |key, value| parse(key, value).expect(value);
        assert_eq!(of(HTTP_MAX_REQUESTS, "7").max_requests, 7);
        assert_eq!(of(HTTP_QUEUE, "0").queue, 0);
        assert_eq!(of(HTTP_MAX_CONNECTIONS, " 9 ").max_connections, 9);
        assert_eq!(of(HTTP_MAX_HEADER, "8Ki").max_header, 8192);
        assert_eq!(of(HTTP_MAX_BODY, "1Mi").max_body, 1 << 20);
        assert_eq!(of(HTTP_REUSE, "128").reuse, 128);
        let both = [(HTTP_REUSE, "128"), (HTTP_CONCURRENCY, "16")];
        let both = both.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shared = HttpServer::parse(&both.into()).expect("both");
        assert_eq!((shared.reuse, shared.concurrency), (128, 16));
        assert_eq!(
            of(HTTP_HEALTH, "/healthz").health.as_deref(),
            Some("/healthz")
        );
        assert_eq!(of(HTTP_ACCESS_LOG, "json").access_log, AccessLog::Json);
        let metrics = of(METRICS_LISTEN, "[::]:9090").metrics;
        assert_eq!(metrics.map(|at| at.port()), Some(9090));
        for (text, expected) in [
            ("500ms", Duration::from_millis(500)),
            ("30s", Duration::from_secs(30)),
            ("5m", Duration::from_secs(300)),
            ("1h", Duration::from_secs(3600)),
        ] {
            assert_eq!(of(HTTP_GRACE, text).grace, expected);
            assert_eq!(of(HTTP_IDLE_TIMEOUT, text).idle_timeout, expected);
            assert_eq!(of(HTTP_HEADER_TIMEOUT, text).header_timeout, expected);
        }
        assert_eq!(
            of(HTTP_REQUEST_TIMEOUT, "2s").request_timeout,
            Duration::from_secs(2)
        );
        assert_eq!(
            of(HTTP_WORK_TIMEOUT, "2m").work_timeout,
            Duration::from_secs(120)
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_key() {
        use annotation::*;
        for (key, value) in [
            (HTTP_MAX_REQUESTS, "0"),
            (HTTP_MAX_REQUESTS, "5000"),
            (HTTP_MAX_REQUESTS, "+5"),
            (HTTP_MAX_REQUESTS, ""),
            (HTTP_QUEUE, "-1"),
            (HTTP_MAX_CONNECTIONS, "many"),
            (HTTP_MAX_HEADER, "1Ki"),
            (HTTP_MAX_HEADER, "2Mi"),
            (HTTP_MAX_BODY, "0"),
            (HTTP_REQUEST_TIMEOUT, "30"),
            (HTTP_REQUEST_TIMEOUT, "0s"),
            (HTTP_REQUEST_TIMEOUT, "1d"),
            (HTTP_GRACE, "169h"),
            (HTTP_GRACE, "99999999999999999999h"),
            (HTTP_WORK_TIMEOUT, "1s"),
            (HTTP_IDLE_TIMEOUT, "s"),
            (HTTP_HEADER_TIMEOUT, "1.5s"),
            (HTTP_REUSE, "0"),
            (HTTP_CONCURRENCY, "0"),
            (HTTP_CONCURRENCY, "2"),
            (HTTP_HEALTH, "healthz"),
            (HTTP_HEALTH, "/a?b"),
            (HTTP_HEALTH, "/a b"),
            (HTTP_ACCESS_LOG, "yes"),
            (METRICS_LISTEN, "9090"),
        ] {
            let (named, problem) = parse(key, value).expect_err(value);
            assert_eq!(named, key, "{value:?}: {problem}");
        }
    }
}
