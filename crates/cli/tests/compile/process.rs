//! What /proc says about a process.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Only a failing test ever waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waiting until {what}");
        sleep(Duration::from_millis(5));
    }
}

pub fn all() -> Vec<Process> {
    fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Process)
        .collect()
}

#[derive(Debug, Clone, Copy)]
pub struct Process(pub u32);

impl Process {
    pub fn own() -> Self {
        Self(std::process::id())
    }

    pub fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    pub fn text(self, name: &str) -> String {
        fs::read(self.path(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    pub fn line(self) -> String {
        self.text("cmdline")
    }

    /// A field of `status`.
    pub fn status(self, name: &str) -> String {
        self.text("status")
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A field of `stat`, by its number in proc(5).
    pub fn stat(self, field: usize) -> String {
        let stat = self.text("stat");
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ')
            .nth(field - 3)
            .unwrap_or_default()
            .to_owned()
    }

    /// A limit, soft and hard.
    pub fn limit(self, name: &str) -> [String; 2] {
        let limits = self.text("limits");
        let values = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        let mut values = values.split_whitespace().map(str::to_owned);
        [
            values.next().unwrap_or_default(),
            values.next().unwrap_or_default(),
        ]
    }

    pub fn namespace(self, name: &str) -> String {
        fs::read_link(self.path("ns").join(name))
            .map(|link| link.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    pub fn descriptors(self) -> BTreeSet<u32> {
        fs::read_dir(self.path("fd"))
            .expect("descriptors")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Ended, also if its parent has not asked yet.
    pub fn is_gone(self) -> bool {
        matches!(self.stat(3).as_str(), "" | "Z" | "X")
    }

    pub fn child(self) -> Option<Self> {
        all()
            .into_iter()
            .find(|process| process.stat(4) == self.0.to_string())
    }
}
