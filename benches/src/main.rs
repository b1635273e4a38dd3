//! Measures wisp beside its peers in one run, writes `docs/benchmarks.md` with
//! charts, and holds `SPECIFICATION.md` against what was measured.

mod api;
mod arguments;
mod bench;
mod chart;
mod contestants;
mod counter;
mod generated;
mod http;
mod images;
mod instructions;
mod machine;
mod measure;
mod node;
mod plan;
mod promise;
mod report;
mod results;
mod samples;
mod started;
mod subjects;
mod task;
mod train;

use crate::arguments::{Arguments, Length, Run, Subject, What};
use crate::bench::Bench;
use crate::contestants::{Form, Programs};
use crate::images::Images;
use crate::node::Node;
use crate::promise::{Promise, Verdict};
use crate::results::Results;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use wisp_tests::{Version, paths};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.what {
        What::Run(run) => measure(&run),
        What::Instructions(instructions) => instructions.compare(),
        What::Train(train) => train.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(run: &Run) -> Result<()> {
    let specification = fs::read_to_string(paths::repository().join("SPECIFICATION.md"))
        .context("read SPECIFICATION.md")?;
    let promises = promise::read(&specification)?;
    let version = Version::ALL
        .into_iter()
        .find(|version| version.to_string() == run.containerd)
        .with_context(|| format!("containerd {} is not known here", run.containerd))?;

    let begin = Instant::now();
    node::private_mounts()?;
    started::clean_up_when_interrupted(node::remove)?;
    let built = paths::repository().join("target/bench");
    let programs = Programs {
        binaries: run.binaries.clone(),
        baseline: run.baseline.clone(),
        peer: built.join("peers/containerd-shim-peerwasi-v1"),
        wasmtime: built.join("peers/wasmtime"),
    };
    let (mut contestants, mut missing) =
        contestants::gather(&programs, &version.programs(), version != Version::V1_6)?;
    contestants.retain(|contestant| {
        run.against.is_empty()
            || contestant.name == "wisp"
            || run.against.iter().any(|name| name == contestant.name)
    });
    for line in &missing {
        println!("bench: not measured: {line}");
    }
    let containerd = version.programs().join("containerd");
    let facts = machine::facts(&run.binaries, &containerd);
    for (name, value) in &facts {
        println!("bench: {name}: {value}");
    }

    let mut results = Results::default();
    if run.only.is_empty() || run.only.iter().any(|subject| subject.shares_node()) {
        take(run, &programs, version, contestants.clone(), &mut results)?;
    }
    if run.wants(Subject::Http) {
        println!("bench: HTTP servers");
        let (cases, not_here) = measure::http::choose(&run.case, &guests())?;
        missing.extend(not_here);
        let http = measure::http::Http {
            programs: &programs,
            contestants: &contestants,
            version,
            guests: &guests(),
            plan: &run.plan().http,
            against: &run.against,
            cases,
        };
        missing.extend(http.measure(&mut results)?);
    }
    println!("bench: measured in {} s", begin.elapsed().as_secs());

    let verdicts = verdicts(&promises, &results)?;
    let report = report::Report {
        facts: &facts,
        missing: &missing,
        results: &results,
        verdicts: &verdicts,
        minutes: begin.elapsed().as_secs().div_ceil(60),
    };
    fs::create_dir_all(&built)?;
    fs::write(
        built.join("results.json"),
        serde_json::to_vec_pretty(&results.to_json())?,
    )?;
    let whole = run.only.is_empty()
        && run.case.is_empty()
        && run.against.is_empty()
        && run.plan != Length::Smoke;
    if whole && version == Version::V2_1 {
        report.write(&paths::repository().join("docs"))?;
        println!("bench: wrote docs/benchmarks.md");
    } else {
        println!("{}", report.tables());
    }
    for (promise, verdict) in &verdicts {
        match verdict {
            Verdict::Kept(said) => println!("kept    {}: {said}", promise.what),
            Verdict::Broken(said) => println!("BROKEN  {}: {said}", promise.what),
            Verdict::Open(said) => println!("open    {}: {said}", promise.what),
        }
    }
    Ok(())
}

/// Measures all that `run` asks for.
fn take(
    run: &Run,
    programs: &Programs,
    version: Version,
    contestants: Vec<contestants::Contestant>,
    results: &mut Results,
) -> Result<()> {
    let node = Node::start(version)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let images = Images::new(&node, &programs.binaries);
    let api = runtime.block_on(api::Api::connect(&node))?;
    let bench = Bench {
        node: &node,
        images,
        contestants,
        plan: run.plan(),
        runtime,
        api,
    };
    let sizes = import(&bench)?;

    let begin = |subject: Subject, what: &str| {
        let wanted = run.wants(subject);
        if wanted {
            println!("bench: {what}");
        }
        wanted
    };
    let measured = (|| {
        if begin(Subject::CtrRun, "ctr run --rm of a hello") {
            measure::ctr_run::measure(&bench, results)?;
        }
        if begin(Subject::Calls, "the task API, call by call") {
            measure::calls::measure(&bench, results)?;
        }
        if begin(Subject::AtOnce, "many at once, through the task API") {
            measure::at_once::measure(&bench, results)?;
        }
        if begin(Subject::CtrAtOnce, "many at once, with ctr") {
            measure::at_once::measure_with_ctr(&bench, results)?;
        }
        if begin(Subject::Memory, "the memory of idle containers") {
            measure::memory::measure(&bench, results)?;
        }
        if version == Version::V2_1 && begin(Subject::Pods, "pods, through the CRI") {
            measure::pods::measure(&bench, &guests(), &programs.binaries, results)?;
        }
        if begin(Subject::Programs, "first and later starts of programs") {
            measure::programs::measure(&bench, results)?;
        }
        if begin(Subject::Sizes, "sizes") {
            measure::sizes::measure(&bench, &sizes, results)?;
        }
        Ok(())
    })();
    measured.map_err(|error: anyhow::Error| {
        error.context(format!("containerd's last words:\n{}\n", node.last_words()))
    })
}

/// Where `build.sh guests` leaves what containers run.
fn guests() -> PathBuf {
    paths::repository().join("target/bench/guests")
}

/// Makes and imports the images; answers the size of the hello of each form.
fn import(bench: &Bench<'_>) -> Result<Vec<(Form, u64)>> {
    let guests = guests();
    let start = guests.join("start.wasm");
    ensure!(
        start.exists(),
        "{} is missing: run benches/build.sh guests",
        start.display()
    );
    let mut sizes = Vec::new();
    for form in [Form::Native, Form::WasmFile, Form::WasmLayer] {
        if !bench.contestants.iter().any(|c| c.form == form) {
            continue;
        }
        let size = match form {
            Form::Native => bench.images.native(&guests.join("start"))?,
            Form::WasmFile | Form::WasmLayer => {
                bench.images.wasm("start", &start, form)?;
                bench.images.wasm("hello", &paths::guest("hello")?, form)?
            }
        };
        sizes.push((form, size));
    }
    Ok(sizes)
}

fn verdicts(promises: &[Promise], results: &Results) -> Result<Vec<(Promise, Verdict)>> {
    promises
        .iter()
        .map(|promise| {
            let verdict = promise
                .verdict(results)
                .with_context(|| format!("SPECIFICATION.md, {}", promise.what))?;
            Ok((promise.clone(), verdict))
        })
        .collect()
}
