//! Which processors servers and their clients have.

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;

/// The processors of one measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Those of the server.
    pub server: Vec<usize>,
    /// Those of the client. They are the server's own where the machine has no
    /// others.
    pub client: Vec<usize>,
}

impl Cores {
    /// `count` processors for the server, and others for the client if there are
    /// any.
    ///
    /// # Errors
    /// When this process may not use so many.
    pub fn with(count: usize) -> Result<Self> {
        let ours = sched_getaffinity(Pid::from_raw(0))?;
        let all: Vec<usize> = (0..CpuSet::count())
            .filter(|cpu| ours.is_set(*cpu).unwrap_or(false))
            .collect();
        ensure!(
            count <= all.len(),
            "{count} processors are wanted, and there are {}",
            all.len()
        );
        Ok(Self::of(&all, count))
    }

    fn of(all: &[usize], count: usize) -> Self {
        let (server, others) = all.split_at(count);
        let client = if others.is_empty() { server } else { others };
        Self {
            server: server.to_vec(),
            client: client.to_vec(),
        }
    }

    pub fn are_shared(&self) -> bool {
        self.client == self.server
    }
}

/// Does something on these processors alone: threads and processes that it starts
/// stay there.
///
/// # Errors
/// The kernel's, and those of `what`.
pub fn on<T>(cpus: &[usize], what: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(this, &set).with_context(|| format!("go to processors {cpus:?}"))?;
    let done = what();
    sched_setaffinity(this, &before).context("come back from there")?;
    done
}

/// Makes sure that a process has these processors and no others.
///
/// # Errors
/// When it has others, or has ended.
pub fn check(pid: i32, cpus: &[usize]) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} has ended"))?;
    let has = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map(list)
        .context("the kernel does not say which processors it has")?;
    ensure!(
        has == cpus,
        "process {pid} is on processors {has:?}, not {cpus:?}"
    );
    Ok(())
}

/// The numbers of a list such as `0-2,5`.
fn list(text: &str) -> Vec<usize> {
    text.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_has_others_where_there_are_any() {
        let one = Cores::of(&[0, 1], 1);
        assert_eq!((one.server, one.client), (vec![0], vec![1]));
        let both = Cores::of(&[0, 1], 2);
        assert!(both.are_shared());
        let of_four = Cores::of(&[0, 1, 2, 3], 2);
        assert_eq!(of_four.client, vec![2, 3]);
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(list("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("1"), [1]);
    }

    #[test]
    fn a_thread_comes_back() {
        let before = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
        let all = Cores::with(1).expect("one processor");
        let own = nix::unistd::gettid().as_raw();
        on(&all.server, || check(own, &all.server)).expect("there");
        let after = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
        assert_eq!(before, after);
    }
}
