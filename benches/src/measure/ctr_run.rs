//! `ctr run --rm` of a hello, around the whole command.

use crate::bench::{Bench, progress, turned};
use crate::contestants::{Contestant, Form, Job};
use crate::images::LAYER_PLATFORM;
use crate::results::{Results, Unit};
use crate::task::milliseconds;
use anyhow::{Result, ensure};
use std::process::{Command, Stdio};
use std::time::Instant;

pub const NAME: &str = "ctr-run";

pub fn measure(bench: &Bench<'_>, results: &mut Results) -> Result<()> {
    let able = able(
        bench.contestants.iter(),
        bench,
        "warm-up",
        results,
        NAME,
        Unit::Milliseconds,
    )?;
    for round in 0..bench.plan.ctr_runs {
        for contestant in turned(&able, round) {
            let id = format!("r{round}");
            let mut ctr = command(bench, contestant, &id);
            ctr.stdout(Stdio::null()).stderr(Stdio::null());
            let begin = Instant::now();
            let status = ctr.status()?;
            let took = begin.elapsed();
            if status.success() {
                let took = milliseconds(took);
                results.add(NAME, Unit::Milliseconds, contestant.name, took);
            } else {
                results.failed(NAME, Unit::Milliseconds, contestant.name);
            }
        }
        progress(NAME, round + 1, bench.plan.ctr_runs);
    }
    Ok(())
}

/// Those of some contestants that `ctr run` can run, found by doing so once as
/// container `id`; the others are noted as failed.
///
/// # Errors
/// What `ctr` said when it was wisp that cannot run.
pub fn able<'c>(
    contestants: impl Iterator<Item = &'c Contestant>,
    bench: &Bench<'_>,
    id: &str,
    results: &mut Results,
    measure: &str,
    unit: Unit,
) -> Result<Vec<&'c Contestant>> {
    let mut able = Vec::new();
    for contestant in contestants {
        let output = command(bench, contestant, id).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && said.contains("hello") {
            able.push(contestant);
            continue;
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(contestant.name != "wisp", "ctr run: {said}{reason}");
        println!("    {} cannot: {said}{reason}", contestant.name);
        results.failed(measure, unit, contestant.name);
    }
    Ok(able)
}

/// `ctr run --rm` of the hello as container `id`.
pub fn command(bench: &Bench<'_>, contestant: &Contestant, id: &str) -> Command {
    let mut ctr = bench.node.ctr();
    ctr.args(["run", "--rm", "--fifo-dir"])
        .arg(bench.node.dir().join("fifo"))
        .args(["--runtime", &contestant.runtime]);
    if let Some(binary) = contestant.oci_binary {
        ctr.args(["--runc-binary", binary]);
    }
    if contestant.form == Form::WasmLayer {
        ctr.args(["--platform", LAYER_PLATFORM]);
    }
    ctr.args(["--", &contestant.image(Job::Hello)])
        .arg(format!("{}-{id}", contestant.name))
        .args(contestant.arguments(Job::Hello))
        .stdin(Stdio::null());
    ctr
}
