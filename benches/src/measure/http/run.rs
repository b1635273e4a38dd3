//! One server in one case.

use crate::http::cases::Case;
use crate::http::connection::Exchange;
use crate::http::cores::{self, Cores};
use crate::http::load::{self, Extent, Pace, Seen};
use crate::http::running::Running;
use crate::http::servers::Server;
use crate::measure::http::names::{PART, PERCENTILES, idle_pss, latency, loaded_pss, open, rate};
use crate::measure::memory::{Memory, SETTLE};
use crate::plan;
use crate::results::{Results, Unit};
use anyhow::{Context, Result, anyhow};
use std::thread::{scope, sleep};

/// A server in one case.
pub struct Run<'a> {
    pub case: &'a Case,
    pub exchange: &'a Exchange,
    pub server: &'a Server,
    pub cores: &'a Cores,
    pub plan: &'a plan::Http,
}

impl Run<'_> {
    /// How many connections at once, in turn.
    fn connections(&self) -> Vec<usize> {
        if self.case.is_hello() {
            self.plan.connections.clone()
        } else {
            vec![self.case.connections()]
        }
    }

    /// Puts the server under load and weighs it.
    ///
    /// # Errors
    /// When it fails.
    pub fn measure(
        &self,
        running: &Running<'_>,
        round: usize,
        results: &mut Results,
    ) -> Result<()> {
        let (case, name) = (self.case.name, self.server.name);
        let processors = self.cores.server.len();
        // Memory and honest latencies are those of one processor.
        let paced = processors == 1 && (self.case.is_hello() || self.plan.thorough);
        let weighed = paced && (round == 0 || self.plan.thorough);
        if weighed {
            sleep(SETTLE);
            let memory = Memory::of(running.pid()).context("the server has ended")?;
            results.add(&idle_pss(case), Unit::Mebibytes, name, memory.pss);
        }
        for connections in self.connections() {
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
        }
        if weighed {
            sleep(SETTLE);
            let memory = Memory::of(running.pid()).context("the server has ended")?;
            results.add(&loaded_pss(case), Unit::Mebibytes, name, memory.pss);
        }
        if paced {
            self.open(running, results)?;
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
        for connections in self.connections() {
            let measure = rate(self.case.name, connections, self.cores.server.len());
            results.failed(&measure, Unit::PerSecond, self.server.name);
        }
    }
}
