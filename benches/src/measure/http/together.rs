//! What servers weigh that are not alone, as on nodes.

use crate::http::cases::Case;
use crate::http::running::Running;
use crate::http::servers::{Place, Server};
use crate::measure::http::Http;
use crate::measure::http::names::{TOGETHER, together_pss};
use crate::measure::memory::{Memory, SETTLE};
use crate::results::{Results, Unit};
use anyhow::{Context, Result};
use std::thread::sleep;

/// The case whose servers are weighed.
const CASE: &str = "hello-02-fresh";

impl Http<'_> {
    /// Weighs servers of each kind after their first answer. What fails is noted.
    pub fn together(&self, servers: &[Server], place: &Place<'_>, results: &mut Results) {
        let Some(case) = self.cases.iter().find(|case| case.name == CASE) else {
            return;
        };
        let measure = together_pss(CASE);
        for server in servers.iter().filter(|server| server.does(case)) {
            match weigh(server, case, place) {
                Ok(pss) => results.add(&measure, Unit::Mebibytes, server.name, pss),
                Err(error) => {
                    println!("    {TOGETHER} servers, {}: {error:#}", server.name);
                    results.failed(&measure, Unit::Mebibytes, server.name);
                }
            }
        }
        println!("    {TOGETHER} servers of each kind");
    }
}

/// MiB of each.
fn weigh(server: &Server, case: &Case, place: &Place<'_>) -> Result<f64> {
    let exchange = case.exchange(place.upstream);
    let running = (0..TOGETHER)
        .map(|_| server.start(case, &exchange, place))
        .collect::<Result<Vec<Running<'_>>>>()?;
    sleep(SETTLE);
    let mut sum = 0.0;
    for running in &running {
        sum += Memory::of(running.pid()).context("a server has ended")?.pss;
    }
    Ok(sum / TOGETHER as f64)
}
