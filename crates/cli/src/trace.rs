//! `wisp trace`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;

const EXAMPLES: &str = "\
Examples:
  WISP_TRACE=/tmp/trace containerd &
  wisp trace /tmp/trace";

/// Tell where the time of creating and starting containers went
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Trace {
    /// The file that `WISP_TRACE` named in containerd's environment
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Step {
    container: String,
    step: String,
    /// Nanoseconds of CLOCK_MONOTONIC.
    at: u64,
}

/// A step over all containers.
#[derive(Debug, PartialEq)]
struct Row {
    step: String,
    /// Median time since the container's first step, in milliseconds.
    since_first: f64,
    /// Median time since the step before, in milliseconds.
    since_last: f64,
    containers: usize,
}

impl Trace {
    /// Prints the table.
    ///
    /// # Errors
    /// A file that cannot be read, or a line that is not a step, by number.
    pub fn run(&self) -> Result<()> {
        let name = self.file.display();
        let text = fs::read_to_string(&self.file).with_context(|| format!("read {name}"))?;
        let rows = rows(&parse(&text).with_context(|| name.to_string())?);
        if rows.is_empty() {
            bail!("{name}: no steps: was WISP_TRACE in containerd's environment?");
        }
        let mut out = String::from("   ms    +ms  containers  step\n");
        for row in rows {
            out += &format!(
                "{:>5.2}  {:>5.2}  {:>10}  {}\n",
                row.since_first, row.since_last, row.containers, row.step
            );
        }
        match io::stdout().lock().write_all(out.as_bytes()) {
            // Who closes the pipe has read enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.context("write to standard output"),
        }
    }
}

fn parse(text: &str) -> Result<Vec<Step>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            serde_json::from_str(line).with_context(|| format!("line {}: not a step", index + 1))
        })
        .collect()
}

fn rows(steps: &[Step]) -> Vec<Row> {
    let mut containers: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        containers.entry(&step.container).or_default().push(step);
    }
    let mut times: BTreeMap<&str, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
    for steps in containers.values_mut() {
        // Two processes report, so the file is not in order.
        steps.sort_by_key(|step| step.at);
        let first = steps.first().map_or(0, |step| step.at);
        let mut last = first;
        for step in steps {
            let (since_first, since_last) = times.entry(&step.step).or_default();
            since_first.push(step.at - first);
            since_last.push(step.at - last);
            last = step.at;
        }
    }
    let mut rows: Vec<Row> = times
        .into_iter()
        .map(|(step, (since_first, since_last))| Row {
            step: step.to_owned(),
            containers: since_first.len(),
            since_first: median(since_first),
            since_last: median(since_last),
        })
        .collect();
    rows.sort_by(|a, b| a.since_first.total_cmp(&b.since_first));
    rows
}

/// In milliseconds; of an even number of times the upper of the two.
fn median(mut nanoseconds: Vec<u64>) -> f64 {
    nanoseconds.sort_unstable();
    let middle = nanoseconds
        .get(nanoseconds.len() / 2)
        .copied()
        .unwrap_or_default();
    std::time::Duration::from_nanos(middle).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_ordered_by_their_time_and_counted_by_container() {
        let steps = parse(
            r#"{"container":"a","step":"second","at":3000000}
{"container":"a","step":"first","at":1000000}

{"container":"b","step":"first","at":9000000}
{"container":"b","step":"second","at":13000000}"#,
        )
        .expect("steps");
        let found = rows(&steps);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].step, "first");
        assert_eq!(found[0].containers, 2);
        assert_eq!(found[1].step, "second");
        assert!((found[1].since_last - 4.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_line_that_is_no_step_is_named() {
        let error = parse("{\"container\":\"a\",\"step\":\"s\",\"at\":1}\nhello").expect_err("bad");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
