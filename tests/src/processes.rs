//! What `/proc` says about processes.

use std::fs;
use std::path::{Path, PathBuf};

/// A process, as far as the tests care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Its arguments, joined by spaces; in brackets the name of one that has none.
    pub line: String,
}

/// Every process of the machine.
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(|pid| Process {
            pid,
            line: line(pid),
        })
        .collect()
}

fn line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if raw.is_empty() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return format!("[{}]", name.trim());
    }
    String::from_utf8_lossy(&raw)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

impl Process {
    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read(self.file(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The program it runs.
    pub fn program(&self) -> Option<PathBuf> {
        fs::read_link(self.file("exe")).ok()
    }

    /// Its parent.
    pub fn parent(&self) -> Option<i32> {
        // The name, in parentheses, may contain anything.
        let stat = self.text("stat");
        let rest = stat.rsplit_once(')')?.1;
        rest.split_whitespace().nth(1)?.parse().ok()
    }

    /// Whether it has ended and waits for its parent.
    pub fn is_zombie(&self) -> bool {
        let stat = self.text("stat");
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    }

    /// Whether it has to do with one of `names`: an argument, its control
    /// group, its working directory, or a mount that only it sees.
    pub fn concerns_any(&self, names: &[&str]) -> bool {
        let in_text = |text: &str| names.iter().any(|name| text.contains(name));
        in_text(&self.line)
            || in_text(&self.text("cgroup"))
            || fs::read_link(self.file("cwd")).is_ok_and(|path| in_text(&path.to_string_lossy()))
            || (self.has_own_mounts() && in_text(&self.text("mountinfo")))
    }

    fn has_own_mounts(&self) -> bool {
        match (
            fs::read_link(self.file("ns/mnt")),
            fs::read_link("/proc/self/ns/mnt"),
        ) {
            (Ok(its), Ok(ours)) => its != ours,
            _ => false,
        }
    }
}

/// The processes that have to do with `name`, this one and its threads aside.
/// `ctr`s that are running are the test's own and do not count.
pub fn concerning(name: &str) -> Vec<Process> {
    concerning_any(&[name])
}

/// The processes that have to do with one of `names`.
pub fn concerning_any(names: &[&str]) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    all()
        .into_iter()
        .filter(|process| process.pid != own && process.parent() != Some(own))
        .filter(|process| process.concerns_any(names))
        .collect()
}
