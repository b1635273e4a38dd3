//! The first start of a program, which compiles it, and later ones.

use crate::bench::{Bench, turned};
use crate::contestants::{Contestant, Form};
use crate::generated;
use crate::results::{Results, Unit};
use crate::task;
use anyhow::{Context, Result};
use std::fs;

/// The name of the measure of first starts of programs of a size.
pub fn first(size: &str) -> String {
    format!("program-{size}-first")
}

/// The name of the measure of later starts.
pub fn later(size: &str) -> String {
    format!("program-{size}-later")
}

pub fn measure(bench: &Bench<'_>, results: &mut Results) -> Result<()> {
    let wasm: Vec<&Contestant> = bench
        .principals()
        .filter(|contestant| contestant.form != Form::Native)
        .collect();
    for (size, bytes, programs) in &bench.plan.programs {
        for number in 0..*programs {
            let name = format!("program-{size}-{number}");
            let file = bench.node.dir().join(format!("{name}.wasm"));
            // The generator takes odd seeds.
            fs::write(&file, generated::program(*bytes, 2 * number + 1))?;
            bench.images.wasm(&name, &file, Form::WasmFile)?;
            if wasm
                .iter()
                .any(|contestant| contestant.form == Form::WasmLayer)
            {
                bench.images.wasm(&name, &file, Form::WasmLayer)?;
            }
            fs::remove_file(&file)?;
            for contestant in turned(&wasm, usize::try_from(number)?) {
                start(bench, results, contestant, size, &name)
                    .with_context(|| format!("{name} with {}", contestant.name))?;
            }
        }
        println!("    {programs} programs of {size}");
    }
    Ok(())
}

fn start(
    bench: &Bench<'_>,
    results: &mut Results,
    contestant: &Contestant,
    size: &str,
    name: &str,
) -> Result<()> {
    bench.node.empty_cache()?;
    bench.runtime.block_on(async {
        let template = bench
            .api
            .template(bench.node, contestant, name, &[])
            .await?;
        for round in 0..=bench.plan.later_starts {
            let measure = if round == 0 { first(size) } else { later(size) };
            match task::once(&bench.api, &template, bench.node.dir()).await {
                Ok(took) => {
                    results.add(&measure, Unit::Milliseconds, contestant.name, took.sum());
                }
                Err(error) => {
                    println!("    {name}, {}: {error:#}", contestant.name);
                    results.failed(&measure, Unit::Milliseconds, contestant.name);
                }
            }
        }
        Ok(())
    })
}
