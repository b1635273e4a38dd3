//! How many processors the server may use, by now.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// For how long what was found is good enough.
const GOOD: Duration = Duration::from_secs(1);

/// The files that say what the container's limit of processor time is by now.
/// Without them only the affinity counts.
#[derive(Debug, Default)]
pub struct CpuLimit {
    /// Of cgroup v2 `cpu.max`, which has the period as well; of v1
    /// `cpu.cfs_quota_us`.
    pub quota: Option<File>,
    /// Of v1 `cpu.cfs_period_us`.
    pub period: Option<File>,
}

/// What was found last.
pub struct Cores {
    limit: CpuLimit,
    known: usize,
    when: Option<Instant>,
}

impl Cores {
    pub fn new(limit: CpuLimit) -> Self {
        Self {
            limit,
            known: 1,
            when: None,
        }
    }

    /// How many threads can have a processor each, at least one. Looks again
    /// where that was a while ago: limits and affinity may be changed at any time.
    pub fn count(&mut self) -> usize {
        let now = Instant::now();
        if self.when.is_none_or(|when| now.duration_since(when) > GOOD) {
            self.when = Some(now);
            self.known = self.limit.cores().unwrap_or(usize::MAX).min(affinity());
        }
        self.known
    }
}

impl CpuLimit {
    fn cores(&self) -> Option<usize> {
        cores(
            &text(self.quota.as_ref()?)?,
            self.period.as_ref().and_then(text).as_deref(),
        )
    }
}

/// How many threads a limit keeps busy: its processors, rounded, since a part of
/// one more is worth a thread only if it is most of it. `None` is no limit.
fn cores(quota: &str, period: Option<&str>) -> Option<usize> {
    let mut words = quota.split_ascii_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next().or(period)?.trim().parse().ok()?;
    let cores = (quota.checked_add(period / 2)?).checked_div(period)?;
    Some(usize::try_from(cores).unwrap_or(usize::MAX).max(1))
}

fn text(file: &File) -> Option<String> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).ok()?;
    Some(String::from_utf8_lossy(text.get(..length)?).into_owned())
}

fn affinity() -> usize {
    let mine = Pid::from_raw(0);
    let count = sched_getaffinity(mine).map_or(1, |set| {
        (0..CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .count()
    });
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_worth_its_processors() {
        for (quota, period, expected) in [
            ("max 100000\n", None, None),
            ("-1\n", Some("100000\n"), None),
            ("100\n", None, None),
            ("", None, None),
            ("10000 100000\n", None, Some(1)),
            ("100000 100000\n", None, Some(1)),
            ("140000 100000\n", None, Some(1)),
            ("150000 100000\n", None, Some(2)),
            ("200000\n", Some("100000\n"), Some(2)),
            ("50000\n", Some("100000\n"), Some(1)),
            ("100000 0\n", None, None),
        ] {
            assert_eq!(cores(quota, period), expected, "{quota:?} {period:?}");
        }
    }

    #[test]
    fn a_limit_that_changes_is_seen() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), "10000 100000\n").expect("write");
        let mut cores = Cores::new(CpuLimit {
            quota: Some(file.reopen().expect("file")),
            period: None,
        });
        assert_eq!(cores.count(), 1);
        std::fs::write(file.path(), "max 100000\n").expect("write");
        cores.when = None;
        assert_eq!(cores.count(), affinity());
    }
}
