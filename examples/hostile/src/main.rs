//! Tries to get what it was not given, and says how each attempt went.

mod connect;
mod files;
mod race;
mod read_only;
mod report;
mod take;

use report::Report;
use std::process::ExitCode;

const USAGE: &str = "hostile files DIR | read-only DIR OTHER | race DIR TIMES | swap DIR | \
                     connect tcp|udp HOST:PORT… | take files|sockets|timers|lookups|random|text";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut report = Report::default();
    let done = match words.as_slice() {
        ["files", dir] => files::leave(dir, &mut report),
        ["read-only", dir, other] => read_only::change(dir, other, &mut report),
        ["race", dir, times] => race::race(dir, times, &mut report),
        ["swap", dir] => race::swap(dir),
        ["connect", protocol, targets @ ..] => connect::all(protocol, targets, &mut report),
        ["take", what] => take::all(what),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => report.end(),
        Err(reason) => {
            eprintln!("hostile: {reason}");
            ExitCode::from(2)
        }
    }
}
