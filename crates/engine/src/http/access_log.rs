//! Lines of the access log.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use wisp_capability::AccessLog;

use super::record::End;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// One line, with its end. What clients send is escaped: it stays within its
/// field, and within the line.
pub fn line(log: AccessLog, end: &End<'_>) -> String {
    match log {
        AccessLog::Off => String::new(),
        AccessLog::Common => common(end),
        AccessLog::Json => json(end),
    }
}

/// The combined log format.
fn common(end: &End<'_>) -> String {
    let details = end.details;
    let time = Time::of(details.time);
    format!(
        "{} - - [{:02}/{}/{}:{:02}:{:02}:{:02} +0000] \"{} {} {:?}\" {} {} \"{}\" \"{}\"\n",
        details.client.ip(),
        time.day,
        MONTHS[time.month - 1],
        time.year,
        time.hour,
        time.minute,
        time.second,
        plain(&details.method),
        plain(&details.target),
        details.version,
        end.status,
        end.sent,
        plain(details.referer.as_deref().unwrap_or("-")),
        plain(details.agent.as_deref().unwrap_or("-")),
    )
}

fn json(end: &End<'_>) -> String {
    let details = end.details;
    let time = Time::of(details.time);
    let mut line = format!(
        "{{\"time\":\"{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z\",\"client\":\"{}\",\"method\":{},\
         \"target\":{},\"protocol\":\"{:?}\",\"status\":{},\"bytes\":{},\"seconds\":{:.6}",
        time.year,
        time.month,
        time.day,
        time.hour,
        time.minute,
        time.second,
        time.millisecond,
        details.client,
        quoted(&details.method),
        quoted(&details.target),
        details.version,
        end.status,
        end.sent,
        end.seconds,
    );
    for (name, value) in [
        ("referer", &details.referer),
        ("agent", &details.agent),
        ("traceparent", &details.trace),
    ] {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(line, ",\"{name}\":{}", quoted(value));
        }
    }
    if end.broken {
        line.push_str(",\"broken\":true");
    }
    line.push_str("}\n");
    line
}

/// Text between quotes of the combined log format.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
        }
    }
    out
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\0'..='\x1f' | '\x7f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

/// A time of day in UTC.
struct Time {
    year: u64,
    /// From 1, as the day.
    month: usize,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl Time {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let mut days = seconds / 86_400;
        let mut year = 1970;
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let lengths = [
            31,
            28 + u64::from(leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        let mut month = 1;
        for length in lengths {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        Self {
            year,
            month,
            day: days + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            millisecond: since.subsec_millis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::Details;
    use super::*;

    fn written(log: AccessLog, target: &str, agent: &str) -> String {
        let details = Details {
            // 2024-02-29 12:34:56.789
            time: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            client: "10.0.0.1:1234".parse().expect("address"),
            method: "GET".into(),
            target: target.into(),
            version: hyper::Version::HTTP_11,
            referer: None,
            agent: Some(agent.into()),
            trace: None,
        };
        line(
            log,
            &End {
                details: &details,
                status: 200,
                sent: 5,
                broken: false,
                seconds: 0.0015,
            },
        )
    }

    #[test]
    fn lines_have_the_formats_that_tools_read() {
        assert_eq!(
            written(AccessLog::Common, "/a?b=c", "curl/8"),
            "10.0.0.1 - - [29/Feb/2024:12:34:56 +0000] \"GET /a?b=c HTTP/1.1\" 200 5 \"-\" \
             \"curl/8\"\n"
        );
        assert_eq!(
            written(AccessLog::Json, "/", "curl/8"),
            "{\"time\":\"2024-02-29T12:34:56.789Z\",\"client\":\"10.0.0.1:1234\",\
             \"method\":\"GET\",\"target\":\"/\",\"protocol\":\"HTTP/1.1\",\"status\":200,\
             \"bytes\":5,\"seconds\":0.001500,\"agent\":\"curl/8\"}\n"
        );
    }

    #[test]
    fn a_client_cannot_write_lines_or_fields_of_its_own() {
        let hostile = "x\" 200 0 \"\n\u{1b}[2J\\é";
        for log in [AccessLog::Common, AccessLog::Json] {
            let line = written(log, "/", hostile);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(!line.contains('\u{1b}'), "{line}");
            assert!(line.contains("x\\\" 200"), "{line}");
        }
    }
}
