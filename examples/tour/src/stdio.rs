//! The three standard streams.

use crate::{Outcome, argument};
use std::io::{self, BufWriter, IsTerminal, Read, Write};

/// Copies stdin to stdout until stdin ends.
pub fn cat(_: &[String]) -> Outcome {
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).map_err(|e| e.to_string())?;
    Ok(())
}

/// Reads stdin to its end and prints the number of bytes and their FNV-1a hash.
pub fn count(_: &[String]) -> Outcome {
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; 64 * 1024];
    let (mut bytes, mut hash) = (0u64, 0xcbf2_9ce4_8422_2325u64);
    loop {
        let read = input.read(&mut buffer).map_err(|e| e.to_string())?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        for byte in &buffer[..read] {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    println!("{bytes} {hash:016x}");
    Ok(())
}

/// Prints exactly `size` bytes: 16-byte lines, each its own offset in hex, so
/// that a reader sees at once what is missing or out of order.
pub fn flood(arguments: &[String]) -> Outcome {
    let text = argument(arguments, 0, "a size such as 4096, 64k or 64m")?;
    let size = parse_size(text).ok_or_else(|| format!("{text:?} is not a size"))?;
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    for offset in (0..size).step_by(16) {
        let line = format!("{offset:015x}\n");
        let length = usize::try_from(size - offset).map_or(16, |rest| rest.min(16));
        out.write_all(&line.as_bytes()[..length])
            .map_err(|e| e.to_string())?;
    }
    out.flush().map_err(|e| e.to_string())
}

/// Writes three lines to stdout and three to stderr, in turn.
pub fn both(_: &[String]) -> Outcome {
    for turn in 1..=3 {
        println!("stdout {turn}");
        eprintln!("stderr {turn}");
    }
    Ok(())
}

/// Says of each stream whether it is a terminal.
pub fn terminal(_: &[String]) -> Outcome {
    let streams = [
        ("stdin", io::stdin().is_terminal()),
        ("stdout", io::stdout().is_terminal()),
        ("stderr", io::stderr().is_terminal()),
    ];
    for (name, is_terminal) in streams {
        println!("{name} {}", if is_terminal { "yes" } else { "no" });
    }
    Ok(())
}

fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1 << 10),
        b'm' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
