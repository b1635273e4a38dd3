//! The format of container logs (Kubernetes, `cri-api`, "CRI logging"):
//! `<RFC 3339 time> <stdout|stderr> <P|F> <text>`, where P is a part of a line.

use anyhow::{Context, Result, bail, ensure};

/// Which stream a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a container's log, whole again if it was kept in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// What it says, without its end.
    pub text: String,
}

/// Reads a log.
///
/// # Errors
/// The first line that is not in the format.
pub fn parse(text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut parts: [Option<String>; 2] = [None, None];
    for raw in text.lines() {
        let bad = || format!("not a line of a CRI log: {raw:?}");
        let mut fields = raw.splitn(4, ' ');
        let time = fields.next().with_context(bad)?;
        let looks = time.len() >= "2006-01-02T15:04:05Z".len()
            && time.as_bytes()[10] == b'T'
            && time[..4].bytes().all(|byte| byte.is_ascii_digit());
        ensure!(looks, bad());
        let stream = match fields.next() {
            Some("stdout") => Stream::Stdout,
            Some("stderr") => Stream::Stderr,
            _ => bail!(bad()),
        };
        let tag = fields.next().with_context(bad)?;
        let text = fields.next().with_context(bad)?;
        let part = &mut parts[stream as usize];
        let mut whole = part.take().unwrap_or_default();
        whole.push_str(text);
        match tag.split(':').next() {
            Some("F") => lines.push(Line {
                stream,
                text: whole,
            }),
            Some("P") => *part = Some(whole),
            _ => bail!(bad()),
        }
    }
    for (part, stream) in parts.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
        lines.extend(part.map(|text| Line { stream, text }));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_lines_and_anything_else_is_an_error() {
        let text = "2026-01-02T03:04:05.678Z stdout P one \n\
                    2026-01-02T03:04:05.678Z stderr F error\n\
                    2026-01-02T03:04:05.678Z stdout F two\n\
                    2026-01-02T03:04:05.678Z stdout P rest\n";
        let lines = parse(text).expect("log");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.stream, &*line.text))
            .collect();
        assert_eq!(
            found,
            [
                (Stream::Stderr, "error"),
                (Stream::Stdout, "one two"),
                (Stream::Stdout, "rest")
            ]
        );
        for bad in [
            "hello",
            "2026-01-02T03:04:05Z stdin F x",
            "2026-01-02T03:04:05Z stdout X x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
