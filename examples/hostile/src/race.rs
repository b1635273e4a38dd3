//! Opening what is being swapped, and swapping it.
//!
//! In the directory are `place`, itself a directory with a `secret` of its own, and
//! `file`, which both say `public`, and `out`, a link to somewhere else with a
//! `secret`.

use crate::files::{open, preopen};
use crate::report::Report;
use wasip2::filesystem::types::Descriptor;

/// What the file says that may be read.
const PUBLIC: &[u8] = b"public\n";

/// Opens what is swapped by others, `times` times, by several ways.
pub fn race(name: &str, times: &str, report: &mut Report) -> Result<(), String> {
    let dir = preopen(name)?;
    let times: u32 = times.parse().map_err(|_| "TIMES is a number")?;
    let (mut opened, mut failed) = (0, 0);
    for _ in 0..times {
        for path in ["place/secret", "place/../secret", "file"] {
            match open(&dir, path) {
                Ok(file) => {
                    opened += 1;
                    look(&file, path, report);
                }
                Err(_) => failed += 1,
            }
        }
    }
    println!("opened {opened}, failed {failed}");
    Ok(())
}

fn look(file: &Descriptor, path: &str, report: &mut Report) {
    if let Ok((content, _)) = file.read(64, 0)
        && content != PUBLIC
    {
        let content = String::from_utf8_lossy(&content).into_owned();
        report.attempt(format_args!("{path}: {content}"), Ok::<_, ()>(()));
    }
}

/// Swaps the two for ever.
pub fn swap(name: &str) -> Result<(), String> {
    let dir = preopen(name)?;
    println!("swapping");
    loop {
        for (from, to) in [
            ("place", "aside"),
            ("out", "place"),
            ("place", "out"),
            ("aside", "place"),
        ] {
            dir.rename_at(from, &dir, to)
                .map_err(|error| format!("move {from}: {error:?}"))?;
        }
    }
}
