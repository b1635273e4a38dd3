//! HTTP servers under load.

mod case;
pub mod names;
mod run;
mod soak;
mod together;

use crate::contestants::{Contestant, Form, Programs};
use crate::http::cases::{CONNECTIONS, Case, REUSE, cases};
use crate::http::containers::Containers;
use crate::http::cores::Cores;
use crate::http::servers::{self, Place};
use crate::measure::http::names::{instance, rate};
use crate::plan;
use crate::results::{Results, Unit};
use crate::started;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;
use wisp_tests::Version;

/// What to measure, and with what.
#[derive(Debug)]
pub struct Http<'a> {
    pub programs: &'a Programs,
    /// Those with containers.
    pub contestants: &'a [Contestant],
    pub version: Version,
    pub guests: &'a Path,
    pub plan: &'a plan::Http,
    /// Only those besides wisp; all if there are none.
    pub against: &'a [String],
    pub cases: Vec<Case>,
}

/// The cases that are asked for by their names, or all, and a line for each one
/// that is not there.
///
/// # Errors
/// A name that is no case's.
pub fn choose(names: &[String], guests: &Path) -> Result<(Vec<Case>, Vec<String>)> {
    let mut all = cases();
    for name in names {
        let known = all.iter().any(|case| case.name == name);
        ensure!(known, "--case {name}: there is no such case");
    }
    all.retain(|case| names.is_empty() || names.iter().any(|name| name == case.name));
    let (here, missing): (Vec<Case>, Vec<Case>) = all
        .into_iter()
        .partition(|case| case.component(guests).exists());
    let lines = missing
        .iter()
        .map(|case| format!("{}: run benches/build.sh guests", case.title))
        .collect();
    Ok((here, lines))
}

impl Http<'_> {
    /// Measures; answers who could not be.
    ///
    /// # Errors
    /// When there is nothing to measure with. A server that fails is noted in the
    /// results.
    pub fn measure(&self, results: &mut Results) -> Result<Vec<String>> {
        let (mut servers, missing) = servers::gather(self.programs, self.contestants)?;
        servers.retain(|server| {
            self.against.is_empty()
                || server.name == "wisp"
                || self.against.iter().any(|name| name == server.name)
        });
        let dir = tempfile::Builder::new().prefix("wisp-bench-").tempdir()?;
        let _noted = started::directory(dir.path());
        for count in &self.plan.cores {
            let cores = match Cores::with(*count) {
                Ok(cores) => cores,
                Err(error) => {
                    println!("    not measured: {error}");
                    continue;
                }
            };
            if cores.are_shared() {
                println!("    {count} processors: the client shares them with the server");
            }
            let containers = Containers::start(self.version, &cores)?;
            self.import(&containers)?;
            let upstream = servers::upstream(&cores, dir.path())?;
            let place = Place {
                cores: &cores,
                containers: &containers,
                dir: dir.path(),
                guests: self.guests,
                upstream: upstream.address,
            };
            for case in &self.cases {
                if self.plan.thorough || case.is_hello() || *count == 1 {
                    self.case(case, &servers, &place, results);
                    println!("    servers with {count} processors: {}", case.title);
                }
            }
            if *count == 1 {
                self.together(&servers, &place, results);
                self.soak(&servers, &place, results);
            }
        }
        instance_costs(results);
        Ok(missing)
    }

    fn import(&self, containers: &Containers) -> Result<()> {
        // A container of a layer is described by the image with the file.
        let mut forms = vec![Form::WasmFile];
        if self
            .contestants
            .iter()
            .any(|one| one.form == Form::WasmLayer)
        {
            forms.push(Form::WasmLayer);
        }
        let guests: BTreeSet<&str> = self.cases.iter().map(|case| case.guest).collect();
        for guest in guests {
            let file = self.guests.join(guest).with_extension("wasm");
            containers.import(&self.programs.binaries, guest, &file, &forms)?;
        }
        Ok(())
    }
}

/// What an instance costs: the time of a request that has a fresh one, less that
/// of one that does not, on one processor that has nothing else to do.
fn instance_costs(results: &mut Results) {
    for interface in ["02", "03"] {
        let rates = |instances: &str| {
            let case = format!("hello-{interface}-{instances}");
            results.get(&rate(&case, CONNECTIONS, 1)).cloned()
        };
        let (Some(fresh), Some(reused)) = (rates("fresh"), rates("reuse")) else {
            continue;
        };
        for (contestant, rate) in &fresh.of {
            let reused = reused.of.get(contestant).and_then(|rate| rate.median());
            let Some((fresh, reused)) = rate.median().zip(reused) else {
                continue;
            };
            // Those that are reused have an instance in so many requests, too.
            let difference = (1.0 / fresh - 1.0 / reused) / (1.0 - 1.0 / f64::from(REUSE));
            let name = instance(interface);
            results.add(&name, Unit::Microseconds, contestant, difference * 1e6);
        }
    }
}
