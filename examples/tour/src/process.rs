//! What a process is given: arguments, environment, time, randomness, memory.

use crate::{Outcome, argument, number};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};
use std::fmt::Write;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Prints each argument after the subcommand on a line of its own.
pub fn args(arguments: &[String]) -> Outcome {
    for argument in arguments {
        println!("{argument}");
    }
    Ok(())
}

/// Prints the environment, sorted, or one variable's value.
pub fn env(arguments: &[String]) -> Outcome {
    if let Ok(name) = argument(arguments, 0, "") {
        let value = std::env::var(name).map_err(|_| format!("{name} is not set"))?;
        println!("{value}");
        return Ok(());
    }
    let sorted: BTreeMap<_, _> = std::env::vars().collect();
    for (name, value) in sorted {
        println!("{name}={value}");
    }
    Ok(())
}

/// Prints the working directory the guest starts in.
pub fn cwd(_: &[String]) -> Outcome {
    let path = std::env::current_dir().map_err(|e| e.to_string())?;
    println!("{}", path.display());
    Ok(())
}

/// Prints the wall clock in seconds since 1970, the nanoseconds of some moments and
/// both clocks' resolutions, and proves that the monotonic clock advances by sleeping
/// 10 ms.
pub fn clocks(_: &[String]) -> Outcome {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| e.to_string())?;
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(10));
    let slept = start.elapsed();
    println!("wall {}", wall.as_secs());
    if slept < Duration::from_millis(10) {
        return Err(format!("10 ms of sleep took {slept:?}"));
    }
    let mut moments = String::from("moments");
    for _ in 0..20 {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|e| e.to_string())?;
        write!(moments, " {}", wall.subsec_nanos()).map_err(|e| e.to_string())?;
    }
    println!("{moments}");
    let [wall, monotonic] = resolutions().map_err(|e| e.to_string())?;
    println!("resolutions {} {}", wall.as_nanos(), monotonic.as_nanos());
    println!("monotonic advances");
    Ok(())
}

/// What Rust's standard library does not ask for: how fine the wall clock and the
/// monotonic one are.
fn resolutions() -> io::Result<[Duration; 2]> {
    /// Of WASI's C library, as long as an address has 32 bits.
    #[repr(C)]
    #[derive(Default)]
    struct Timespec {
        seconds: i64,
        nanoseconds: c_long,
    }
    // SAFETY: as WASI's C library declares them; its clocks are addresses.
    unsafe extern "C" {
        static _CLOCK_REALTIME: u8;
        static _CLOCK_MONOTONIC: u8;
        fn clock_getres(clock: *const u8, resolution: *mut Timespec) -> c_int;
    }
    let resolution = |clock| {
        let mut found = Timespec::default();
        // SAFETY: a clock of the library's, and a place for its answer.
        if unsafe { clock_getres(clock, &raw mut found) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(found.seconds).map_err(io::Error::other)?;
        let nanoseconds = u32::try_from(found.nanoseconds).map_err(io::Error::other)?;
        Ok(Duration::new(seconds, nanoseconds))
    };
    Ok([
        resolution(&raw const _CLOCK_REALTIME)?,
        resolution(&raw const _CLOCK_MONOTONIC)?,
    ])
}

/// Prints random bytes in hex.
pub fn random(arguments: &[String]) -> Outcome {
    let wanted: usize = number(arguments, 0, "a number of bytes")?;
    let mut text = String::with_capacity(wanted * 2);
    while text.len() < wanted * 2 {
        // Each `RandomState` is seeded from the host's randomness.
        let word = {
            use std::hash::{BuildHasher, Hasher};
            std::collections::hash_map::RandomState::new()
                .build_hasher()
                .finish()
        };
        for byte in word.to_le_bytes() {
            write!(text, "{byte:02x}").map_err(|e| e.to_string())?;
        }
    }
    text.truncate(wanted * 2);
    println!("{text}");
    Ok(())
}

/// Takes memory, one mebibyte at a time and every page of it touched, and
/// prints what it got.
pub fn hog(arguments: &[String]) -> Outcome {
    let mebibytes: usize = number(arguments, 0, "a number of mebibytes")?;
    let mut held = Vec::new();
    take(&mut held, mebibytes)?;
    println!("holding {} MiB", held.len());
    Ok(())
}

/// Takes memory as `hog` does, as many mebibytes more as each line of stdin
/// says, and prints after each what it has; ends with stdin.
pub fn grow(_: &[String]) -> Outcome {
    let mut held = Vec::new();
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let more = number(&[line], 0, "a number of mebibytes")?;
        match take(&mut held, more) {
            Ok(()) => println!("holding {} MiB", held.len()),
            Err(reason) => println!("{reason}"),
        }
    }
    Ok(())
}

fn take(held: &mut Vec<Vec<u8>>, mebibytes: usize) -> Outcome {
    for _ in 0..mebibytes {
        let mut block = Vec::new();
        block
            .try_reserve_exact(1 << 20)
            .map_err(|_| format!("no more memory after {} MiB", held.len()))?;
        block.resize(1 << 20, 1);
        held.push(block);
    }
    Ok(())
}
