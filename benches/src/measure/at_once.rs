//! Many at once: through the task API, and as that many `ctr run`.

use crate::api::{Api, Prepared};
use crate::bench::{Bench, turned};
use crate::contestants::Job;
use crate::measure::ctr_run;
use crate::results::{Results, Unit};
use crate::task::Fifo;
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// The name of the measure of `count` at once through the API.
pub fn name(count: usize) -> String {
    format!("at-once-{count}")
}

/// The name of the measure of `count` `ctr run` at once.
pub fn ctr_name(count: usize) -> String {
    format!("ctr-at-once-{count}")
}

/// Containers' records and snapshots are there before the clock runs: they are
/// containerd's work and the same for all.
pub fn measure(bench: &Bench<'_>, results: &mut Results) -> Result<()> {
    let templates = bench.templates(bench.principals(), Job::Hello)?;
    for (count, times) in &bench.plan.at_once {
        for round in 0..*times {
            for (contestant, template) in turned(&templates, round) {
                let rate = bench.runtime.block_on(async {
                    let mut all = Vec::new();
                    for _ in 0..*count {
                        all.push(bench.api.prepare(template).await?);
                    }
                    let output = Fifo::new(bench.node.dir().join("at-once"))?;
                    at_once(&bench.api, all, &output.path()?).await
                });
                let name = name(*count);
                match rate {
                    Ok(rate) => results.add(&name, Unit::PerSecond, contestant.name, rate),
                    Err(error) => {
                        println!("    {count} at once, {}: {error:#}", contestant.name);
                        results.failed(&name, Unit::PerSecond, contestant.name);
                    }
                }
            }
        }
        println!("    {count} at once, {times} times each");
    }
    Ok(())
}

/// Runs all from Create to Delete, begun at once, with their output to the FIFO
/// `stream`; answers how many are done per second.
async fn at_once(api: &Api, all: Vec<Prepared>, stream: &str) -> Result<f64> {
    let count = all.len();
    let all: Vec<Arc<Prepared>> = all.into_iter().map(Arc::new).collect();
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for prepared in &all {
        let (api, prepared) = (api.clone(), Arc::clone(prepared));
        let stream = stream.to_owned();
        tasks.spawn(async move {
            api.create(&prepared, &stream, &stream).await?;
            let waiting = tokio::spawn({
                let (api, id) = (api.clone(), prepared.id.clone());
                async move { api.wait(&id).await }
            });
            api.start(&prepared.id).await?;
            let code = waiting.await??;
            ensure!(code == 0, "a container ended with {code}");
            api.delete(&prepared.id).await
        });
    }
    let mut failure = None;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.map_err(anyhow::Error::from).flatten() {
            failure.get_or_insert(error);
        }
    }
    let took = begin.elapsed();
    for prepared in &all {
        match failure {
            None => api.remove(prepared).await?,
            Some(_) => api.clear(prepared).await,
        }
    }
    match failure {
        None => Ok(count as f64 / took.as_secs_f64()),
        Some(error) => Err(error),
    }
}

pub fn measure_with_ctr(bench: &Bench<'_>, results: &mut Results) -> Result<()> {
    for (count, times) in &bench.plan.ctr_at_once {
        let name = ctr_name(*count);
        let warm_up = format!("warm-up-{count}");
        let able = ctr_run::able(
            bench.principals(),
            bench,
            &warm_up,
            results,
            &name,
            Unit::PerSecond,
        )?;
        for round in 0..*times {
            for contestant in turned(&able, round) {
                let begin = Instant::now();
                let mut running = Vec::new();
                for number in 0..*count {
                    let id = format!("a{count}-{round}-{number}");
                    let child = ctr_run::command(bench, contestant, &id)
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .spawn()
                        .context("start ctr")?;
                    running.push(child);
                }
                let mut failed = 0;
                for mut child in running {
                    if !child.wait()?.success() {
                        failed += 1;
                    }
                }
                let took = begin.elapsed().as_secs_f64();
                if failed == 0 {
                    let rate = *count as f64 / took;
                    results.add(&name, Unit::PerSecond, contestant.name, rate);
                } else {
                    println!("    {failed} of {count} failed with {}", contestant.name);
                    results.failed(&name, Unit::PerSecond, contestant.name);
                }
            }
        }
        println!("    {count} ctr at once, {times} times each");
    }
    Ok(())
}
