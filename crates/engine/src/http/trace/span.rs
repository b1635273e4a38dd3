//! What is remembered of a piece of work until it is exported. Texts of clients
//! and guests are copied, and cut: a part of a request that is kept would keep all
//! of the buffer that it came in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{Method, Uri, Version};

use super::context::{SpanContext, SpanId};

/// The longest text that is kept, in bytes.
const LONGEST: usize = 512;

/// One that is over.
pub struct Span {
    pub context: SpanContext,
    pub parent: Option<Parent>,
    /// The trace's `tracestate`.
    pub state: Option<Arc<str>>,
    /// Nanoseconds since 1970.
    pub begun: u64,
    pub ended: u64,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub struct Parent {
    pub span: SpanId,
    /// It is in another process.
    pub is_remote: bool,
}

/// What was done.
pub enum What {
    /// A request was answered.
    Served(Served),
    /// A request was made.
    Called(Called),
    /// A step of answering one.
    Step(Step),
}

pub struct Served {
    pub request: Head,
    pub client: SocketAddr,
    pub agent: Option<Box<str>>,
    /// `None` where the client left before there was a response.
    pub status: Option<u16>,
    /// The body did not come to its end.
    pub broken: bool,
}

pub struct Called {
    pub request: Head,
    pub outcome: Outcome,
}

/// What came of a request that was made.
pub enum Outcome {
    Response(u16, Version),
    /// By the name that WASI gives it.
    Failed(&'static str),
    /// Nobody waited for it.
    GivenUp,
}

pub struct Step {
    pub name: &'static str,
    pub problem: Option<Problem>,
}

/// What went wrong: one of few words, and more about it.
pub struct Problem {
    pub kind: Box<str>,
    pub text: Box<str>,
}

/// The beginning of a request.
pub struct Head {
    pub method: Method,
    /// Whatever it is that names the host and the port.
    pub authority: Option<Box<str>>,
    pub path: Box<str>,
    pub query: Option<Box<str>>,
    pub is_tls: bool,
    pub version: Version,
}

impl Head {
    /// `authority` counts where `uri` has none.
    pub fn new(method: &Method, uri: &Uri, authority: Option<&[u8]>, version: Version) -> Self {
        let authority = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => authority.and_then(|text| std::str::from_utf8(text).ok()),
        };
        Self {
            method: method.clone(),
            // The user's name and password are for nobody to see.
            authority: authority.map(|text| cut(text.rsplit('@').next().unwrap_or_default())),
            path: cut(uri.path()),
            query: uri.query().map(cut),
            is_tls: uri.scheme() == Some(&http::uri::Scheme::HTTPS),
            version,
        }
    }
}

/// As much of `text` as is kept.
pub fn cut(text: &str) -> Box<str> {
    text.get(..text.floor_char_boundary(LONGEST))
        .unwrap_or_default()
        .into()
}

/// When something began, by both clocks: one tells the time, the other goes on
/// evenly.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    wall: u64,
    at: Instant,
}

impl Begun {
    /// Something that began at `at`, not long ago.
    pub fn new(at: Instant) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |time| nanoseconds(time.as_nanos()));
        Self {
            wall: now.saturating_sub(nanoseconds(at.elapsed().as_nanos())),
            at,
        }
    }

    /// What `instant` is in nanoseconds since 1970.
    pub fn wall(&self, instant: Instant) -> u64 {
        let later = instant.saturating_duration_since(self.at);
        self.wall.saturating_add(nanoseconds(later.as_nanos()))
    }
}

fn nanoseconds(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_head_keeps_no_password_and_no_more_than_fits() {
        let uri: Uri = "https://me:secret@a.example:81/x?y=z".parse().expect("uri");
        let head = Head::new(&Method::GET, &uri, Some(b"other"), Version::HTTP_11);
        assert_eq!(head.authority.as_deref(), Some("a.example:81"));
        assert_eq!((&*head.path, head.query.as_deref()), ("/x", Some("y=z")));
        assert!(head.is_tls);
        let uri: Uri = format!("/{}", "é".repeat(2000)).parse().expect("uri");
        let head = Head::new(&Method::GET, &uri, Some(b"b.example"), Version::HTTP_11);
        assert_eq!(head.authority.as_deref(), Some("b.example"));
        // The cut is not within a character.
        assert_eq!(head.path.len(), LONGEST - 1);
        let head = Head::new(&Method::GET, &uri, Some(b"\xff"), Version::HTTP_11);
        assert_eq!(head.authority, None);
    }

    #[test]
    fn times_follow_each_other_whatever_the_clock_does() {
        let at = Instant::now();
        let begun = Begun::new(at);
        let later = begun.wall(at + Duration::from_millis(5));
        assert_eq!(later - begun.wall(at), 5_000_000);
        // Nothing ends before it begins.
        let before = at.checked_sub(Duration::from_millis(1)).expect("time");
        assert_eq!(begun.wall(before), begun.wall(at));
    }
}
