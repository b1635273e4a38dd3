//! How often things are measured.

use std::time::Duration;

/// Counts of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds of `ctr run`, each with every contestant.
    pub ctr_runs: usize,
    /// Rounds of single calls, and of the time to the first instruction.
    pub calls: usize,
    /// How many start at once, and how often.
    pub at_once: Vec<(usize, usize)>,
    /// The same with `ctr`.
    pub ctr_at_once: Vec<(usize, usize)>,
    /// How many are idle, and how often they are weighed.
    pub idle: Vec<(usize, usize)>,
    /// Rounds of pods.
    pub pods: usize,
    /// How many pods are idle when they are weighed.
    pub idle_pods: Vec<usize>,
    /// Programs: their name, bytes, and how many of that size.
    pub programs: Vec<(&'static str, usize, u64)>,
    /// Later starts after each first one.
    pub later_starts: usize,
    pub http: Http,
}

/// How servers are put under load.
#[derive(Clone, Debug)]
pub struct Http {
    /// How often each server of a case has its turn.
    pub rounds: usize,
    /// How many connections at once.
    pub connections: Vec<usize>,
    /// How many processors a server has.
    pub cores: Vec<usize>,
    /// How long each load goes on before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub measured: Duration,
    /// How long it counts at a part of the capacity.
    pub open: Duration,
    /// How many requests show that memory stays what it is.
    pub soak: u64,
    /// Whether all cases are measured with all these processors, and memory and
    /// open loops in all cases.
    pub thorough: bool,
}

impl Plan {
    /// For `make bench`: about 17 minutes on two cores, most of them for HTTP servers.
    pub fn quick() -> Self {
        Self {
            ctr_runs: 30,
            calls: 40,
            at_once: vec![(1, 10), (10, 5), (50, 3), (100, 3)],
            ctr_at_once: vec![(50, 2)],
            idle: vec![(1, 1), (20, 1), (100, 1)],
            pods: 15,
            idle_pods: vec![1, 20],
            programs: vec![
                ("50kb", 50_000, 3),
                ("2mb", 2_000_000, 3),
                ("20mb", 20_000_000, 1),
            ],
            later_starts: 5,
            http: Http {
                rounds: 5,
                connections: vec![1, 32, 256],
                cores: vec![1, 2],
                warm_up: Duration::from_millis(100),
                measured: Duration::from_millis(500),
                open: Duration::from_millis(1500),
                soak: 300_000,
                thorough: false,
            },
        }
    }

    /// For `make bench-full`.
    pub fn full() -> Self {
        Self {
            ctr_runs: 100,
            calls: 150,
            at_once: vec![(1, 30), (10, 15), (50, 9), (100, 9)],
            ctr_at_once: vec![(50, 5), (100, 5)],
            idle: vec![(1, 5), (20, 3), (100, 3)],
            pods: 50,
            idle_pods: vec![1, 20, 100],
            programs: vec![
                ("50kb", 50_000, 9),
                ("2mb", 2_000_000, 5),
                ("20mb", 20_000_000, 3),
            ],
            later_starts: 10,
            http: Http {
                rounds: 3,
                connections: vec![1, 32, 256],
                cores: vec![1, 2],
                warm_up: Duration::from_millis(500),
                measured: Duration::from_millis(3000),
                open: Duration::from_millis(10_000),
                soak: 3_600_000,
                thorough: true,
            },
        }
    }

    /// To see whether the benchmarks work; the numbers are worth nothing.
    pub fn smoke() -> Self {
        Self {
            ctr_runs: 3,
            calls: 3,
            at_once: vec![(1, 1), (10, 1)],
            ctr_at_once: vec![(10, 1)],
            idle: vec![(1, 1), (5, 1)],
            pods: 2,
            idle_pods: vec![1, 5],
            programs: vec![("50kb", 50_000, 1), ("2mb", 2_000_000, 1)],
            later_starts: 2,
            http: Http {
                rounds: 1,
                connections: vec![1, 32],
                cores: vec![1],
                warm_up: Duration::from_millis(100),
                measured: Duration::from_millis(300),
                open: Duration::from_millis(500),
                soak: 20_000,
                thorough: false,
            },
        }
    }
}
