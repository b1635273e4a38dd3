//! Tells what a guest was refused, on its standard error: a line each, with what
//! would grant it, and not more lines than somebody reads.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wisp_capability::{Scheme, annotation};

use crate::exit::complain;

/// At most so many lines in [`WHILE`].
const LINES: u32 = 5;
const WHILE: Duration = Duration::from_secs(10);

/// What was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// A connection, or a datagram, to this place.
    Connect(Scheme, &'a str),
    /// A request to this host, which may be asked for, but is at an address
    /// that may not.
    Prohibited(Scheme, &'a str),
    /// Listening here, or binding to send from here.
    Listen(Scheme, &'a str),
    /// Sockets of a kind that no rule is about.
    Sockets(Scheme),
    /// The addresses of a name.
    Lookup(&'a str),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OUT: &str = annotation::NET_OUTBOUND;
        const LISTEN: &str = annotation::NET_LISTEN;
        match self {
            Self::Connect(scheme, place) => write!(
                f,
                "connecting to {place} by {scheme}: no rule grants it; {OUT} would: \
                 {scheme}://{place}"
            ),
            Self::Prohibited(scheme, place) => write!(
                f,
                "{scheme} to {place}: it has only addresses that must be named (link-local, \
                 metadata, the node's own, its loopback); {OUT} would grant it with the address"
            ),
            Self::Listen(scheme, place) => write!(
                f,
                "listening on {place} by {scheme}: no rule grants it; {LISTEN} would: \
                 {scheme}://{place}"
            ),
            Self::Sockets(scheme) => write!(
                f,
                "a {scheme} socket: no rule grants any; {OUT} or {LISTEN} would: \
                 {scheme}://HOST:PORT"
            ),
            Self::Lookup(name) => write!(
                f,
                "looking up {name:?}: no rule about sockets names it; {OUT} would: \
                 tcp://{name}"
            ),
        }
    }
}

/// What was refused to all instances of this process.
pub struct Refusals {
    state: Mutex<State>,
    tell: fn(&str),
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    /// Lines since then.
    lines: u32,
    /// In all.
    count: u64,
    /// Not told, since the last line.
    quiet: u64,
    last: String,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            tell: complain,
        }
    }
}

impl Refusals {
    /// Tells of `refusal`, unless much has been told lately, or just this.
    pub fn tell(&self, refusal: &Refusal<'_>) {
        self.tell_at(refusal, Instant::now());
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.state().count
    }

    fn tell_at(&self, refusal: &Refusal<'_>, now: Instant) {
        let mut state = self.state();
        state.count += 1;
        let fresh = state
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= WHILE);
        if fresh {
            state.since = Some(now);
            state.lines = 0;
        }
        let text = refusal.to_string();
        let again = text == state.last && !fresh;
        if again || state.lines >= LINES {
            state.quiet += 1;
            return;
        }
        state.lines += 1;
        let untold = untold(&state);
        state.quiet = 0;
        (self.tell)(&format!("refused: {}{untold}", clean(&text)));
        state.last = text;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts are right whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many there were beside those that were told.
fn untold(state: &State) -> String {
    match state.quiet {
        0 => String::new(),
        quiet => format!(
            " ({quiet} more refused since the last line, {} in all)",
            state.count
        ),
    }
}

/// A line stays one, whatever a guest has put into a name.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(500)
        .collect()
}

impl Drop for Refusals {
    /// Sums up what was not told one by one.
    fn drop(&mut self) {
        let State { quiet, count, .. } = *self.state();
        if quiet > 0 {
            (self.tell)(&format!(
                "refused: {count} in all, {quiet} of them not told"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn told() -> Vec<String> {
        std::mem::take(&mut *TOLD.lock().expect("told"))
    }

    #[test]
    fn each_refusal_is_told_once_and_many_are_counted() {
        let refusals = Refusals {
            state: Mutex::default(),
            tell: |line| TOLD.lock().expect("told").push(line.to_owned()),
        };
        let start = Instant::now();
        let connect = |place: &str, at| {
            refusals.tell_at(&Refusal::Connect(Scheme::Tcp, place), start + at);
        };
        for _ in 0..3 {
            connect("10.0.0.1:80", Duration::ZERO);
        }
        let lines = told();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("refused: connecting to 10.0.0.1:80"),
            "{lines:?}"
        );
        assert!(
            lines[0].ends_with("io.wisp.net.outbound would: tcp://10.0.0.1:80"),
            "{lines:?}"
        );
        for port in 1..100 {
            connect(&format!("10.0.0.1:{port}"), Duration::from_secs(1));
        }
        let lines = told();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("2 more"), "{lines:?}");
        connect("10.0.0.2:1", WHILE);
        let lines = told();
        assert!(
            lines[0].contains("95 more refused since the last line, 103 in all"),
            "{lines:?}"
        );
        connect("10.0.0.2:1", WHILE);
        assert_eq!(refusals.count(), 104);
        told();
        connect("10.0.0.2:1", WHILE);
        drop(refusals);
        assert_eq!(told(), ["refused: 105 in all, 2 of them not told"]);
    }

    #[test]
    fn a_guest_cannot_write_lines_of_ours() {
        let text = Refusal::Lookup("a\nwisp: all is well\u{1b}[2J").to_string();
        let line = clean(&text);
        assert!(!line.contains(['\n', '\u{1b}']), "{line}");
        assert!(clean(&"x".repeat(10_000)).len() <= 500);
    }
}
