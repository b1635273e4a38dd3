//! All servers of one case, in turn.

use crate::bench::turned;
use crate::http::cases::Case;
use crate::http::running::Running;
use crate::http::servers::{Place, Server};
use crate::measure::http::Http;
use crate::measure::http::run::{Run, connections};
use crate::measure::memory::SETTLE;
use crate::results::Results;
use anyhow::Result;
use std::thread::sleep;

/// The case whose latencies are promised.
const PROMISED: &str = "hello-02-fresh";

/// A server that runs, until it fails.
struct Taking<'a> {
    run: Run<'a>,
    running: Option<Running<'a>>,
}

impl<'a> Taking<'a> {
    /// Does something with the server if it still serves; one that fails is noted
    /// and ended.
    fn take(
        &mut self,
        results: &mut Results,
        what: impl FnOnce(&Run<'a>, &Running<'a>, &mut Results) -> Result<()>,
    ) {
        let Some(running) = &self.running else { return };
        if let Err(error) = what(&self.run, running, results) {
            println!(
                "    {}, {}: {error:#}",
                self.run.case.title, self.run.server.name
            );
            self.run.failed(results);
            self.running = None;
        }
    }
}

impl Http<'_> {
    /// Measures every server that can do it. All are there from the first to the
    /// last, and each is asked for a moment in turn: a machine that is shared does
    /// less or more from one minute to the next, and who is compared has to have
    /// had the same minute.
    pub fn case(&self, case: &Case, servers: &[Server], place: &Place<'_>, results: &mut Results) {
        let exchange = case.exchange(place.upstream);
        let processors = place.cores.server.len();
        let start = |server, results: &mut Results| {
            let run = Run {
                case,
                exchange: &exchange,
                server,
                cores: place.cores,
                plan: self.plan,
            };
            match server.start(case, &exchange, place) {
                Ok(running) => Some(Taking {
                    run,
                    running: Some(running),
                }),
                Err(error) => {
                    println!("    {}, {}: {error:#}", case.title, server.name);
                    run.failed(results);
                    None
                }
            }
        };
        let mut taking: Vec<Taking<'_>> = servers
            .iter()
            .filter(|server| server.does(case))
            .filter_map(|server| start(server, results))
            .collect();
        // Memory and honest latencies are those of one processor.
        let paced = processors == 1 && (case.is_hello() || self.plan.thorough);
        if paced {
            sleep(SETTLE);
            for one in &mut taking {
                one.take(results, Run::idle);
            }
        }
        let numbers: Vec<usize> = (0..taking.len()).collect();
        for round in 0..self.plan.rounds {
            for connections in connections(self.plan, case) {
                for number in turned(&numbers, round) {
                    taking[*number].take(results, |run, running, results| {
                        run.rate(running, connections, results)
                    });
                }
            }
        }
        if !paced {
            return;
        }
        sleep(SETTLE);
        for one in &mut taking {
            one.take(results, Run::loaded);
        }
        // What the machine itself does to latencies: the native server's, which is
        // asked for the same part of what it can do.
        if case.name == PROMISED {
            taking.extend(
                servers
                    .iter()
                    .filter(|one| one.is_native())
                    .filter_map(|server| start(server, results)),
            );
        }
        let numbers: Vec<usize> = (0..taking.len()).collect();
        for round in 0..self.plan.rounds {
            for number in turned(&numbers, round) {
                taking[*number].take(results, Run::open);
            }
        }
    }
}
