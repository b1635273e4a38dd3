//! What is said about traces: by requests' fields, and by the environment of a
//! container, which is partly its image's.
//!
//! A server's modules, and no part of what its crate shows: compiled here once more.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

#[path = "../../../engine/src/http/trace"]
#[allow(dead_code, reason = "of a server, a part")]
mod read {
    pub mod context;
    pub mod sampler;
    pub mod settings;
    pub mod variables;
}
use read::context::{SpanContext, TRACEPARENT, TRACESTATE, state};
use read::sampler::Root;
use read::settings::Settings;

/// How much one line may have that says what is wrong: of a value that was made to
/// be long, and all that is known beside it.
const LINE: usize = 1200;

/// A line each: `traceparent: VALUE` or `tracestate: VALUE`.
pub fn fields(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        for name in [TRACEPARENT, TRACESTATE] {
            let value = line
                .strip_prefix(name.as_str().as_bytes())
                .and_then(|rest| rest.strip_prefix(b": "))
                .and_then(|value| HeaderValue::from_bytes(value).ok());
            if let Some(value) = value {
                headers.append(name, value);
            }
        }
    }
    if let Some(context) = SpanContext::of(&headers) {
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        assert!(context.trace.0 != [0; 16] && context.span.0 != [0; 8]);
        // What is sent on is what was read.
        let field = context.field();
        let mut sent = HeaderMap::new();
        sent.insert(TRACEPARENT, field.clone());
        assert_eq!(SpanContext::of(&sent), Some(context));
        let came = &headers[TRACEPARENT].as_bytes()[2..53];
        assert_eq!(&field.as_bytes()[2..53], came);
    }
    if let Some(all) = state(&headers) {
        let members: Vec<_> = all.split(',').collect();
        assert!(members.len() <= 32 && members.iter().all(|member| member.len() <= 513));
        let came = |member: &&str| {
            headers.get_all(TRACESTATE).iter().any(|field| {
                let mut parts = field.as_bytes().split(|byte| *byte == b',');
                parts.any(|part| part.trim_ascii() == member.trim().as_bytes())
            })
        };
        assert!(members.iter().all(came), "{all:?} of {headers:?}");
        let mut sent = HeaderMap::new();
        let field = HeaderValue::from_str(&all).expect("a field's value");
        sent.insert(TRACESTATE, field);
        assert_eq!(state(&sent), Some(all));
    }
}

/// A line each: `NAME=VALUE`.
pub fn variables(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let env: Vec<_> = text
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let told = RefCell::new(Vec::new());
    let tell = |line: &str| told.borrow_mut().push(line.to_owned());
    let settings = Settings::read(&env, "app.wasm", &tell);
    for line in told.into_inner() {
        // Among others' lines, one that an image says is none of its own making.
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.len() <= LINE, "{line:?}");
        if line.contains("_HEADERS: ") {
            let secret = line.split_once("_HEADERS: its entry ");
            let rest =
                secret.map(|(_, rest)| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
            assert_eq!(rest, Some(" is ignored: it is no NAME=VALUE of a field"));
        }
    }
    let is_named = |name: &&str| env.iter().any(|(known, _)| known == name);
    let Some(settings) = settings else {
        return;
    };
    assert!(is_named(&settings.variable));
    let scheme = settings.endpoint.scheme_str();
    assert!(matches!(scheme, Some("http" | "https")), "{scheme:?}");
    assert!(
        settings
            .endpoint
            .host()
            .is_some_and(|host| !host.is_empty())
    );
    assert!((1..=16_384).contains(&settings.queue));
    assert!((1..=settings.queue).contains(&settings.batch));
    let day = Duration::from_secs(24 * 60 * 60);
    for time in [settings.timeout, settings.batch_timeout, settings.delay] {
        assert!(!time.is_zero() && time <= day, "{time:?}");
    }
    if let Root::Below(bound) = settings.sampler.root {
        assert!(bound <= 1 << 63);
    }
    // What frames a request is not for an environment to say.
    for name in ["host", "content-length", "transfer-encoding", "connection"] {
        assert!(!settings.headers.contains_key(HeaderName::from_static(name)));
    }
    // A name stands for one value (OpenTelemetry, common specification, attributes).
    let names: BTreeSet<_> = settings.resource.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names.len(),
        settings.resource.len(),
        "{:?}",
        settings.resource
    );
    assert!(names.iter().any(|name| *name == "service.name"));
}
