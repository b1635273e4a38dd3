//! Create, Start, Wait and Delete of the task API, one by one, and the time from
//! Start to the guest's first instruction.

use crate::bench::{Bench, progress, turned};
use crate::contestants::Job;
use crate::results::{Results, Unit};
use crate::task;
use anyhow::{Context, Result};

pub const SUM: &str = "task";
pub const CREATE: &str = "task-create";
pub const START: &str = "task-start";
pub const WAIT: &str = "task-wait";
pub const DELETE: &str = "task-delete";
pub const FIRST_INSTRUCTION: &str = "first-instruction";
pub const EMPTY_CALL: &str = "empty-call";

pub fn measure(bench: &Bench<'_>, results: &mut Results) -> Result<()> {
    const MS: Unit = Unit::Milliseconds;
    let templates = bench.templates(bench.contestants.iter(), Job::Clock)?;
    let once = |template| {
        bench
            .runtime
            .block_on(task::once(&bench.api, template, bench.node.dir()))
    };
    for (contestant, template) in &templates {
        let took = once(template).with_context(|| format!("a task of {}", contestant.name))?;
        took.to_guest
            .with_context(|| format!("the guest of {} did not say its time", contestant.name))?;
    }
    for round in 0..bench.plan.calls {
        for (contestant, template) in turned(&templates, round) {
            let name = contestant.name;
            let Ok(took) = once(template) else {
                results.failed(SUM, MS, name);
                continue;
            };
            results.add(SUM, MS, name, took.sum());
            results.add(CREATE, MS, name, took.create);
            results.add(START, MS, name, took.start);
            results.add(WAIT, MS, name, took.wait);
            results.add(DELETE, MS, name, took.delete);
            if let Some(to_guest) = took.to_guest {
                results.add(FIRST_INSTRUCTION, MS, name, to_guest);
            }
            results.add(EMPTY_CALL, MS, name, took.empty_call);
        }
        progress("task API", round + 1, bench.plan.calls);
    }
    Ok(())
}
