//! One server in one case.

use crate::http::cases::Case;
use crate::http::connection::Exchange;
use crate::http::cores::{self, Cores};
use crate::http::load::{self, Extent, Pace, Seen};
use crate::http::running::Running;
use crate::http::servers::Server;
use crate::measure::http::names::{PART, PERCENTILES, idle_pss, latency, loaded_pss, open, rate};
use crate::measure::memory::Memory;
use crate::plan;
use crate::results::{Results, Unit};
use anyhow::{Context, Result, anyhow};
use std::thread::scope;

/// How many connections at once a server has in a case, in turn.
pub fn connections(plan: &plan::Http, case: &Case) -> Vec<usize> {
    if case.is_hello() {
        plan.connections.clone()
    } else {
        vec![case.connections()]
    }
}

/// A server in one case.
pub struct Run<'a> {
    pub case: &'a Case,
    pub exchange: &'a Exchange,
    pub server: &'a Server,
    pub cores: &'a Cores,
    pub plan: &'a plan::Http,
}

impl Run<'_> {
    /// Weighs the server before it is asked for much.
    ///
    /// # Errors
    /// When it has ended.
    pub fn idle(&self, running: &Running<'_>, results: &mut Results) -> Result<()> {
        self.weigh(running, &idle_pss(self.case.name), results)
    }

    /// Weighs the server after that.
    ///
    /// # Errors
    /// When it has ended.
    pub fn loaded(&self, running: &Running<'_>, results: &mut Results) -> Result<()> {
        self.weigh(running, &loaded_pss(self.case.name), results)
    }

    fn weigh(&self, running: &Running<'_>, measure: &str, results: &mut Results) -> Result<()> {
        let memory = Memory::of(running.pid()).context("the server has ended")?;
        results.add(measure, Unit::Mebibytes, self.server.name, memory.pss);
        Ok(())
    }

    /// All that the server can do, with so many connections.
    ///
    /// # Errors
    /// When it fails.
    pub fn rate(
        &self,
        running: &Running<'_>,
        connections: usize,
        results: &mut Results,
    ) -> Result<()> {
        let (case, name) = (self.case.name, self.server.name);
        let processors = self.cores.server.len();
        let extent = Extent::Time {
            warm_up: self.plan.warm_up,
            measured: self.plan.measured,
        };
        let seen = self.load(running, connections, Pace::Closed, extent)?;
        let measure = rate(case, connections, processors);
        results.add(&measure, Unit::PerSecond, name, seen.rate);
        for (percentile, part) in PERCENTILES {
            let measure = latency(case, connections, processors, percentile);
            let value = seen.latencies.quantile(part).context("no latencies")?;
            results.add(&measure, Unit::Milliseconds, name, value);
        }
        Ok(())
    }

    /// Latencies at a part of what the server can do at the time: a machine that
    /// is shared can do more or less a minute later, and a server close to its
    /// capacity says more of that than of itself.
    ///
    /// # Errors
    /// When it fails.
    pub fn open(&self, running: &Running<'_>, results: &mut Results) -> Result<()> {
        let (case, name) = (self.case.name, self.server.name);
        let connections = self.case.connections();
        let extent = |measured| Extent::Time {
            warm_up: self.plan.warm_up,
            measured,
        };
        let capacity = self.load(
            running,
            connections,
            Pace::Closed,
            extent(self.plan.measured),
        )?;
        let pace = Pace::Open(capacity.rate * PART);
        let seen = self.load(running, connections, pace, extent(self.plan.open))?;
        for (percentile, part) in PERCENTILES {
            let value = seen.latencies.quantile(part).context("no latencies")?;
            results.add(&open(case, percentile), Unit::Milliseconds, name, value);
        }
        Ok(())
    }

    /// The client has a thread of its own on its processors.
    pub fn load(
        &self,
        running: &Running<'_>,
        connections: usize,
        pace: Pace,
        extent: Extent,
    ) -> Result<Seen> {
        scope(|scope| {
            let client = scope.spawn(|| {
                cores::on(&self.cores.client, || {
                    load::run(running.address, self.exchange, connections, pace, extent)
                })
            });
            client
                .join()
                .unwrap_or_else(|_| Err(anyhow!("the client panicked")))
        })
    }

    /// Notes that it failed.
    pub fn failed(&self, results: &mut Results) {
        for connections in connections(self.plan, self.case) {
            let measure = rate(self.case.name, connections, self.cores.server.len());
            results.failed(&measure, Unit::PerSecond, self.server.name);
        }
    }
}
