//! Each way to end, and two ways not to.

use crate::{Outcome, argument, number};
use std::hint::black_box;
use std::time::Duration;

/// Ends with the given code.
pub fn exit(arguments: &[String]) -> Outcome {
    let code: u8 = number(arguments, 0, "an exit code from 0 to 255")?;
    leave(code)
}

#[cfg(target_env = "p2")]
fn leave(code: u8) -> Outcome {
    // The standard library would turn every code but 0 into 1 here.
    wasip2::cli::exit::exit_with_code(code);
    Ok(())
}

#[cfg(not(target_env = "p2"))]
fn leave(code: u8) -> Outcome {
    std::process::exit(i32::from(code))
}

/// Traps three named functions deep, in one of several ways.
pub fn trap(arguments: &[String]) -> Outcome {
    let how = argument(arguments, 0, "").unwrap_or("unreachable");
    outer(how)
}

#[inline(never)]
fn outer(how: &str) -> Outcome {
    // `black_box` after each call keeps it from becoming a tail call, which
    // would take its frame out of the backtrace.
    black_box(middle(how))
}

#[inline(never)]
fn middle(how: &str) -> Outcome {
    black_box(inner(how))
}

#[inline(never)]
fn inner(how: &str) -> Outcome {
    match how {
        "unreachable" => core::arch::wasm32::unreachable(),
        "panic" => panic!("the tour ends here"),
        "stack" => Err(format!(
            "recursion came back with {}",
            recurse(black_box(1))
        )),
        // Running out of it is the standard library's own end.
        "memory" => loop {
            black_box(vec![1u8; 1 << 20]).leak();
        },
        _ => Err(format!("no trap named {how:?}")),
    }
}

/// Recurses until the host's limit on the stack stops it. Each frame holds
/// too little of linear memory for that to run out first.
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    if depth == 0 {
        return 0;
    }
    black_box(recurse(depth.wrapping_add(1))).wrapping_add(depth)
}

/// Says so, then computes for ever.
pub fn spin(_: &[String]) -> Outcome {
    println!("spinning");
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Says so, then sleeps.
pub fn sleep(arguments: &[String]) -> Outcome {
    let milliseconds = number(arguments, 0, "a number of milliseconds")?;
    println!("sleeping");
    std::thread::sleep(Duration::from_millis(milliseconds));
    println!("awake");
    Ok(())
}
