//! The context of a trace as it travels with requests: W3C Trace Context, level 1
//! (<https://www.w3.org/TR/trace-context-1/>).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The one flag that level 1 knows.
const SAMPLED: u8 = 1;

/// How many members a `tracestate` may have (section 3.3.1.1).
const MEMBERS: usize = 32;

/// The longest parts of a member (sections 3.3.1.3.1 and 3.3.1.3.2).
const KEY: usize = 256;
const TENANT: usize = 241;
const VENDOR: usize = 14;
const VALUE: usize = 256;

/// Of a `traceparent` of version 00.
const LENGTH: usize = 55;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A trace's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// A span's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub [u8; 8]);

/// A span as others are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    pub trace: TraceId,
    pub span: SpanId,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl SpanContext {
    /// What a request's fields say; `None` without a `traceparent`, with more
    /// than one or with one that is malformed.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut found = headers.get_all(TRACEPARENT).iter();
        let field = found.next()?;
        match found.next() {
            None => Self::parse(field.as_bytes()),
            Some(_) => None,
        }
    }

    /// Reads the value of a `traceparent` (section 3.2). Of versions to come, the
    /// part that is known counts.
    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let [version] = hex(parts.next()?)?;
        let trace = hex(parts.next()?)?;
        let span = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        let ends_well = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let is_valid = ends_well && trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & SAMPLED != 0,
        })
    }

    /// The value of a `traceparent`, of version 00.
    pub fn field(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(LENGTH);
        text.extend(b"00-");
        write_hex(&mut text, &self.trace.0);
        text.push(b'-');
        write_hex(&mut text, &self.span.0);
        text.push(b'-');
        write_hex(&mut text, &[self.flags()]);
        // Digits and dashes are a value.
        HeaderValue::from_maybe_shared(Bytes::from(text))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    /// The flags, of which level 1 lets no other be set.
    pub fn flags(&self) -> u8 {
        if self.sampled { SAMPLED } else { 0 }
    }
}

/// The members of a request's `tracestate`, which has come with a valid
/// `traceparent`; `None` where there are none or they are malformed (section 3.3).
pub fn state(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut all = String::new();
    for field in headers.get_all(TRACESTATE) {
        let text = std::str::from_utf8(field.as_bytes()).ok()?;
        for member in text
            .split(',')
            .map(|member| member.trim_matches([' ', '\t']))
        {
            if member.is_empty() {
                continue;
            }
            if !is_member(member) {
                return None;
            }
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(member);
        }
    }
    let fits = !all.is_empty() && all.split(',').count() <= MEMBERS;
    fits.then(|| all.into())
}

fn is_member(member: &str) -> bool {
    member
        .split_once('=')
        .is_some_and(|(key, value)| is_key(key) && is_value(value))
}

/// A vendor's name, or a tenant's and a vendor's.
fn is_key(key: &str) -> bool {
    let has = |text: &str, digit_first: bool, most: usize| {
        let begins = text.bytes().next().is_some_and(|first| {
            first.is_ascii_lowercase() || (digit_first && first.is_ascii_digit())
        });
        let goes_on = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte)
        };
        begins && text.len() <= most && text.bytes().all(goes_on)
    };
    match key.split_once('@') {
        None => has(key, false, KEY),
        Some((tenant, vendor)) => has(tenant, true, TENANT) && has(vendor, false, VENDOR),
    }
}

fn is_value(value: &str) -> bool {
    let is_printable = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b'=';
    !value.is_empty() && value.len() <= VALUE && value.bytes().all(is_printable)
}

/// The bytes that so many lower-case digits stand for, no more and no fewer.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |byte: &u8| DIGITS.iter().position(|known| known == byte);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0;
        for one in pair {
            value = value << 4 | digit(one)?;
        }
        *byte = u8::try_from(value).ok()?;
    }
    Some(bytes)
}

/// Appends the digits of `bytes`.
pub fn write_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.extend(DIGITS.get(usize::from(half)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).expect("value");
            headers.append(*name, value);
        }
        headers
    }

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        for (flags, sampled) in [("00", false), ("01", true)] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let context = SpanContext::of(&headers(&[("traceparent", &text)])).expect("context");
            assert_eq!(context.sampled, sampled);
            assert_eq!(context.field(), text);
        }
    }

    #[test]
    fn of_versions_to_come_the_known_part_counts() {
        for text in [
            format!("cc-{TRACE}-{SPAN}-09"),
            format!("cc-{TRACE}-{SPAN}-ff-what-the-future-will-be-like"),
            format!("00-{TRACE}-{SPAN}-ff"),
        ] {
            let context = SpanContext::parse(text.as_bytes()).expect(&text);
            assert_eq!(context.field(), format!("00-{TRACE}-{SPAN}-01"));
        }
    }

    #[test]
    fn what_is_malformed_is_no_traceparent() {
        for text in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("cc-{TRACE}-{SPAN}-01.what"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}"),
            format!("0-{TRACE}-{SPAN}-011"),
            format!("00-{TRACE}0-{SPAN}-1"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}-g1"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(SpanContext::parse(text.as_bytes()), None, "{text:?}");
        }
        let text = format!("00-{TRACE}-{SPAN}-01");
        let twice = headers(&[("traceparent", &text), ("traceparent", &text)]);
        assert_eq!(SpanContext::of(&twice), None);
    }

    #[test]
    fn states_are_one_list_of_valid_members() {
        let of = |fields: &[&str]| {
            let fields: Vec<_> = fields.iter().map(|value| ("tracestate", *value)).collect();
            state(&headers(&fields))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["", " , "]), None);
        for (fields, expected) in [
            (&["a=1"][..], "a=1"),
            (&["a=1 , b=2", "c=3"], "a=1,b=2,c=3"),
            (&["a=1,,", "\tb= x~"], "a=1,b= x~"),
            (&["0tenant@vendor-x*/_=y"], "0tenant@vendor-x*/_=y"),
        ] {
            assert_eq!(of(fields).as_deref(), Some(expected), "{fields:?}");
        }
        let long = format!("a={}", "x".repeat(257));
        let long_key = format!("{}=x", "a".repeat(257));
        let many = (0..33).map(|n| format!("a{n}=1")).collect::<Vec<_>>();
        for field in [
            "a",
            "=1",
            "A=1",
            "1a=1",
            "a=",
            "a=b=c",
            "a@=1",
            "@a=1",
            "a@1=1",
            "a b=1",
            "a=\tb",
            &long,
            &long_key,
            &many.join(","),
        ] {
            assert_eq!(of(&[field]), None, "{field:?}");
        }
        let enough = &many[..32];
        assert_eq!(
            of(&[&enough.join(",")]).as_deref(),
            Some(&*enough.join(","))
        );
    }
}
