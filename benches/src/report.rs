//! `docs/benchmarks.md` and its charts.

use crate::chart::{self, Group};
use crate::http::report as http;
use crate::promise::{Promise, Verdict, shown};
use crate::results::{Measure, Results};
use crate::subjects::{Section, sections};
use anyhow::{Context, Result};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Contestants in the order in which they are listed.
const ORDER: [&str; 12] = [
    "wisp",
    "wisp-run",
    "wisp-layer",
    "wisp-before",
    "runc",
    "crun",
    "wasmtime",
    "wasmtime-tuned",
    "wasmtime-timeout",
    "runwasi",
    "runwasi-file",
    "hyper",
];

/// Everything that is written.
#[derive(Debug)]
pub struct Report<'a> {
    pub facts: &'a [(&'static str, String)],
    pub missing: &'a [String],
    pub results: &'a Results,
    pub verdicts: &'a [(Promise, Verdict)],
    pub minutes: u64,
}

const INTRODUCTION: &str = "\
# Benchmarks

Written by `make bench` (or `make bench-full`, which takes more samples): everything
below is of one run, in which the contestants took turns, each round beginning with
another one. What wisp promises is in [SPECIFICATION.md](../SPECIFICATION.md), and
[at the end](#promises) each promise is held against this run.

| contestant | what |
|---|---|
| wisp | this version, a component of WASI 0.2 in a plain image, compiled before |
| wisp-layer | the same with the component as a Wasm layer |
| wisp-before | an earlier version of wisp, the same image |
| runc, crun | containerd's own shim with busybox |
| runwasi | a shim on the crate `containerd-shim-wasm` with the same Wasmtime ([source](../benches/peer-runwasi)), the same component as a Wasm layer, compiled before and kept by that crate |
| runwasi-file | the same with the component in a plain image, which that crate compiles at each start |

The median is of all samples; 95 of 100 samples are at most p95; the spread is the
distance between the quartiles as a part of the median. The last column is wisp's
median divided by the contestant's: below 1, wisp takes less.
";

impl Report<'_> {
    /// Writes `benchmarks.md` and the charts into `docs`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, docs: &Path) -> Result<()> {
        let charts = docs.join("benchmarks");
        fs::create_dir_all(&charts)?;
        for section in sections().into_iter().chain(http::charts()) {
            if let Some(svg) = self.chart(&section) {
                let path = charts.join(section.chart).with_extension("svg");
                fs::write(&path, svg).with_context(|| path.display().to_string())?;
            }
        }
        let path = docs.join("benchmarks.md");
        let text = format!(
            "{INTRODUCTION}\n{}\n{}\n{}",
            self.machine(),
            self.tables(),
            self.promises()
        );
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn machine(&self) -> String {
        let mut text = "## Machine\n\n| | |\n|---|---|\n".to_owned();
        for (name, value) in self.facts {
            line(&mut text, format_args!("| {name} | {value} |"));
        }
        line(
            &mut text,
            format_args!("| the run took | {} minutes |", self.minutes),
        );
        for missing in self.missing {
            line(&mut text, format_args!("\nNot measured: {missing}."));
        }
        text
    }

    /// Every section with its table.
    pub fn tables(&self) -> String {
        sections()
            .iter()
            .filter_map(|section| self.section(section))
            .chain(http::tables(self.results))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn section(&self, section: &Section) -> Option<String> {
        let mut rows = String::new();
        for (name, label) in &section.measures {
            if let Some(measure) = self.results.get(name) {
                measure_rows(&mut rows, label, measure);
            }
        }
        if rows.is_empty() {
            return None;
        }
        let unit = section
            .measures
            .iter()
            .find_map(|(name, _)| Some(self.results.get(name)?.unit))?;
        let chart = match self.chart(section) {
            Some(_) => format!(
                "![{}](benchmarks/{}.svg)\n\n",
                section.title.replace('`', ""),
                section.chart
            ),
            None => String::new(),
        };
        Some(format!(
            "## {}\n\n{}\n\n{chart}| {unit} | contestant | median | p95 | spread | samples | wisp ÷ it |\n|---|---|--:|--:|--:|--:|--:|\n{rows}",
            section.title, section.method
        ))
    }

    fn chart(&self, section: &Section) -> Option<String> {
        let mut unit = None;
        let mut groups = Vec::new();
        for name in &section.charted {
            let Some(measure) = self.results.get(name) else {
                continue;
            };
            let label = section
                .measures
                .iter()
                .find_map(|(known, label)| (known == name).then(|| label.replace('`', "")))
                .filter(|_| section.charted.len() > 1);
            let bars: Vec<(String, f64)> = ordered(measure)
                .filter_map(|contestant| {
                    let median = measure.of.get(contestant)?.median()?;
                    Some((contestant.to_owned(), median))
                })
                .collect();
            unit = Some(measure.unit);
            groups.push(Group {
                label: label.unwrap_or_default(),
                bars,
            });
        }
        Some(chart::bars(&section.title.replace('`', ""), unit?, &groups))
    }

    fn promises(&self) -> String {
        let mut text = "## Promises\n\n| promise | | this run |\n|---|---|---|\n".to_owned();
        for (promise, verdict) in self.verdicts {
            let (word, said) = match verdict {
                Verdict::Kept(said) => ("kept", said),
                Verdict::Broken(said) => ("**broken**", said),
                Verdict::Open(said) => ("open", said),
            };
            line(
                &mut text,
                format_args!("| {} | {word} | {said} |", promise.what),
            );
        }
        text
    }
}

/// Who was measured, in the order in which they are listed.
pub fn ordered(measure: &Measure) -> impl Iterator<Item = &'static str> {
    ORDER.into_iter().filter(|contestant| {
        measure.of.contains_key(*contestant) || measure.failures.contains_key(*contestant)
    })
}

fn measure_rows(rows: &mut String, label: &str, measure: &Measure) {
    let wisp = measure.of.get("wisp").and_then(|samples| samples.median());
    for (place, contestant) in ordered(measure).enumerate() {
        let label = if place == 0 { label } else { "" };
        let failures = match measure.failures.get(contestant) {
            Some(failures) => format!(", {failures} failed"),
            None => String::new(),
        };
        let samples = measure.of.get(contestant).cloned().unwrap_or_default();
        let spread = samples
            .spread()
            .filter(|_| samples.count() > 1)
            .map_or("–".to_owned(), |spread| {
                format!("{:.0} %", spread * 100.0)
            });
        let ratio = match (contestant, wisp, samples.median()) {
            ("wisp", _, _) => String::new(),
            (_, Some(wisp), Some(median)) => format!("{:.2}", wisp / median),
            _ => "–".to_owned(),
        };
        line(
            rows,
            format_args!(
                "| {label} | {contestant} | {} | {} | {spread} | {}{failures} | {ratio} |",
                number(samples.median()),
                number(samples.p95()),
                samples.count(),
            ),
        );
    }
}

/// A value, or a dash if there is none.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), shown)
}

/// Writes a line.
pub fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Unit;

    #[test]
    fn a_measure_is_a_table_with_ratios_and_failures() {
        let mut results = Results::default();
        results.add("ctr-run", Unit::Milliseconds, "wisp", 50.0);
        results.add("ctr-run", Unit::Milliseconds, "runc", 100.0);
        results.failed("ctr-run", Unit::Milliseconds, "crun");
        let report = Report {
            facts: &[],
            missing: &[],
            results: &results,
            verdicts: &[],
            minutes: 1,
        };
        let tables = report.tables();
        assert!(
            tables.contains("| `ctr run --rm` | wisp | 50.0 | 50.0 | – | 1 |  |"),
            "{tables}"
        );
        assert!(
            tables.contains("|  | runc | 100 | 100 | – | 1 | 0.50 |"),
            "{tables}"
        );
        assert!(
            tables.contains("|  | crun | – | – | – | 0, 1 failed | – |"),
            "{tables}"
        );
    }

    #[test]
    fn every_measure_of_a_chart_is_in_its_table() {
        for section in sections() {
            for name in &section.charted {
                assert!(
                    section.measures.iter().any(|(known, _)| known == name),
                    "{name}"
                );
            }
        }
    }
}
