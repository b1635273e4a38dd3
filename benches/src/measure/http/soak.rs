//! Very many requests, to see whether a server grows.

use crate::http::cases::CONNECTIONS;
use crate::http::load::{Extent, Pace};
use crate::http::servers::{Place, Server};
use crate::measure::http::Http;
use crate::measure::http::names::{soak_growth, soak_pss};
use crate::measure::http::run::Run;
use crate::measure::memory::Memory;
use crate::results::{Results, Unit};
use crate::samples::Samples;
use anyhow::{Context, Result};

/// How often it is weighed.
pub const PARTS: u64 = 20;

/// The cases whose servers are soaked: one whose instances come and go, and one
/// whose instances stay.
pub const CASES: [&str; 2] = ["hello-02-fresh", "hello-03-reuse"];

impl Http<'_> {
    /// Soaks wisp.
    pub fn soak(&self, servers: &[Server], place: &Place<'_>, results: &mut Results) {
        for case in &self.cases {
            if !CASES.contains(&case.name) {
                continue;
            }
            let exchange = case.exchange(place.upstream);
            for server in servers.iter().filter(|server| server.name == "wisp") {
                let run = Run {
                    case,
                    exchange: &exchange,
                    server,
                    cores: place.cores,
                    plan: self.plan,
                };
                match soak(&run, place, self.plan.soak, results) {
                    Ok(()) => println!("    soak: {}", case.title),
                    Err(error) => {
                        println!("    soak, {}: {error:#}", case.title);
                        results.failed(&soak_growth(case.name), Unit::Mebibytes, server.name);
                    }
                }
            }
        }
    }
}

fn soak(run: &Run<'_>, place: &Place<'_>, requests: u64, results: &mut Results) -> Result<()> {
    let (case, name) = (run.case.name, run.server.name);
    let running = run.server.start(run.case, run.exchange, place)?;
    let mut weights = Vec::new();
    for _ in 0..PARTS {
        let extent = Extent::Requests(requests / PARTS);
        run.load(&running, CONNECTIONS, Pace::Closed, extent)?;
        let memory = Memory::of(running.pid()).context("the server has ended")?;
        results.add(&soak_pss(case), Unit::Mebibytes, name, memory.pss);
        weights.push(memory.pss);
    }
    results.add(&soak_growth(case), Unit::Mebibytes, name, growth(&weights));
    Ok(())
}

/// What the last quarter weighs more than the second, by their medians: the first
/// is for what fills up once.
fn growth(weights: &[f64]) -> f64 {
    let quarter = weights.len() / 4;
    let median = |from: usize| {
        let some: Samples = weights[from..from + quarter].iter().copied().collect();
        some.median().unwrap_or_default()
    };
    median(weights.len() - quarter) - median(quarter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_up_once_is_no_growth() {
        assert_eq!(growth(&[1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]), 0.0);
        assert_eq!(growth(&[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]), 2.0);
    }
}
