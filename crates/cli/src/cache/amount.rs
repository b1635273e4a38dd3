//! Sizes and ages, as people write them.

use std::time::Duration;

/// Bytes, in the largest unit of which there is one.
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, length) in UNITS {
        if bytes >= length {
            let tenths = u128::from(bytes) * 10 / u128::from(length);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// How long ago something was.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Reads bytes: `1048576`, `500KiB`, `64M`, `2 GiB`.
///
/// # Errors
/// What is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("write bytes, or a number with KiB, MiB, GiB or TiB".into()),
    };
    number
        .parse::<u64>()
        .map_err(|_| "write a whole number, then KiB, MiB, GiB or TiB".to_owned())?
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is larger than any disk".into())
}

/// Reads an age: `90s`, `30m`, `12h`, `7d`.
///
/// # Errors
/// What is none.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("write a number with s, m, h or d for days".into()),
    };
    number
        .parse::<u64>()
        .map_err(|_| "write a whole number, then s, m, h or d".to_owned())?
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(|| "that is longer than there was time".into())
}

/// Digits, and what follows them.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_900_000, "1.8 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ages_are_readable() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (864_000, "10 days"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("3K", 3 << 10),
            ("500MiB", 500 << 20),
            ("2 GiB", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "1 MB",
            "1 mib",
            "1 GiB x",
            "99999999T",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_are_read() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("2m", 120),
            ("12h", 43_200),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "7",
            "-1d",
            "1.5h",
            "1w",
            "9999999999999999999d",
            "999999999999999999d",
        ] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }
}
