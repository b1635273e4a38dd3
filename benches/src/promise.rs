//! The promises of `SPECIFICATION.md`, read from that file.
//!
//! A promise is a row of a table whose last cell is a formula in backquotes:
//!
//! ```text
//! ctr-run[wisp] <= 0.8 * ctr-run[runc]
//! first-instruction[wisp] <= 1 ms
//! at-once-100[wisp] >= 1.5 * at-once-100[runc]
//! http-hello-02-fresh-32x1[wisp] >= 1.1 * http-hello-02-fresh-32x1[wasmtime, runwasi]
//! ```
//!
//! `measure[contestant]` is the median of that measure; of several contestants it is
//! the best of those that were measured.

use crate::results::{Results, Unit};
use anyhow::{Context, Result, bail, ensure};
use std::fmt;

/// One row of the specification.
#[derive(Clone, Debug, PartialEq)]
pub struct Promise {
    /// The row's first cell.
    pub what: String,
    formula: Formula,
}

#[derive(Clone, Debug, PartialEq)]
struct Formula {
    what: Term,
    at_least: bool,
    bound: Bound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    measure: String,
    contestants: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Bound {
    Absolute(f64, String),
    Relative(f64, Term),
}

/// What became of a promise.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Kept(String),
    Broken(String),
    /// The run did not measure it.
    Open(String),
}

/// Reads every promise of a specification.
///
/// # Errors
/// A row without a formula or with one that cannot be read, by its line; a file
/// without promises.
pub fn read(specification: &str) -> Result<Vec<Promise>> {
    let mut promises = Vec::new();
    let mut lines = specification.lines().enumerate().peekable();
    while let Some((_, line)) = lines.next() {
        let is_table = lines
            .peek()
            .is_some_and(|(_, next)| next.starts_with("|-") && line.starts_with('|'));
        if !is_table {
            continue;
        }
        lines.next();
        while let Some((number, row)) = lines.next_if(|(_, row)| row.starts_with('|')) {
            let promise =
                promise(row).with_context(|| format!("SPECIFICATION.md, line {}", number + 1))?;
            promises.push(promise);
        }
    }
    ensure!(!promises.is_empty(), "SPECIFICATION.md promises nothing");
    Ok(promises)
}

fn promise(row: &str) -> Result<Promise> {
    let cells: Vec<&str> = row.trim().trim_matches('|').split('|').collect();
    let (first, last) = match cells.as_slice() {
        [first, .., last] => (first.trim(), last.trim()),
        _ => bail!("a row needs a name and a formula"),
    };
    let formula = last
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'))
        .with_context(|| format!("the last cell is no formula in backquotes: {last}"))?;
    Ok(Promise {
        what: first.to_owned(),
        formula: formula
            .parse()
            .with_context(|| format!("formula `{formula}`"))?,
    })
}

impl std::str::FromStr for Formula {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (left, at_least, right) = if let Some((left, right)) = text.split_once("<=") {
            (left, false, right)
        } else if let Some((left, right)) = text.split_once(">=") {
            (left, true, right)
        } else {
            bail!("neither <= nor >=");
        };
        let bound = match right.split_once('*') {
            Some((factor, term)) => Bound::Relative(number(factor)?, term.parse()?),
            None => {
                let (value, unit) = right.trim().split_once(' ').context("a bound has a unit")?;
                Bound::Absolute(number(value)?, unit.trim().to_owned())
            }
        };
        Ok(Self {
            what: left.parse()?,
            at_least,
            bound,
        })
    }
}

impl std::str::FromStr for Term {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let (measure, rest) = text
            .split_once('[')
            .with_context(|| format!("`{text}` is not measure[contestant]"))?;
        let contestants = rest
            .strip_suffix(']')
            .with_context(|| format!("`{text}` is not measure[contestant]"))?;
        Ok(Self {
            measure: measure.to_owned(),
            contestants: contestants
                .split(',')
                .map(|contestant| contestant.trim().to_owned())
                .collect(),
        })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.measure, self.contestants.join(", "))
    }
}

fn number(text: &str) -> Result<f64> {
    let text = text.trim();
    text.parse()
        .with_context(|| format!("`{text}` is no number"))
}

impl Promise {
    /// Holds the promise against what was measured.
    ///
    /// # Errors
    /// When it promises in another unit than is measured.
    pub fn verdict(&self, results: &Results) -> Result<Verdict> {
        let Formula {
            what,
            at_least,
            bound,
        } = &self.formula;
        let Some((found, unit)) = value(results, what) else {
            return Ok(if has_failed(results, what) {
                Verdict::Broken(format!("{what} failed"))
            } else {
                Verdict::Open(format!("{what} was not measured"))
            });
        };
        let sign = if *at_least { "≥" } else { "≤" };
        let (is, may_be, said) = match bound {
            Bound::Absolute(limit, promised) => {
                ensure!(
                    *promised == unit.to_string(),
                    "{what} is measured in {unit}, not in {promised}"
                );
                let said = format!("{} {unit}, promised {sign} {limit} {unit}", shown(found));
                (found, *limit, said)
            }
            Bound::Relative(factor, peer) => {
                let Some((theirs, their_unit)) = value(results, peer) else {
                    return Ok(Verdict::Open(format!("{peer} was not measured")));
                };
                ensure!(unit == their_unit, "{what} and {peer} have different units");
                let ratio = found / theirs;
                let said = format!(
                    "{} of {peer} ({} to {} {unit}), promised {sign} {factor}",
                    shown(ratio),
                    shown(found),
                    shown(theirs)
                );
                (ratio, *factor, said)
            }
        };
        let kept = if *at_least {
            is >= may_be
        } else {
            is <= may_be
        };
        Ok(if kept {
            Verdict::Kept(said)
        } else {
            Verdict::Broken(said)
        })
    }
}

fn value(results: &Results, term: &Term) -> Option<(f64, Unit)> {
    term.contestants
        .iter()
        .filter_map(|contestant| results.median(&term.measure, contestant))
        .reduce(|(best, unit), (other, _)| {
            let better = if unit.more_is_better() {
                best.max(other)
            } else {
                best.min(other)
            };
            (better, unit)
        })
}

/// Whether it was tried and never done.
fn has_failed(results: &Results, term: &Term) -> bool {
    results.get(&term.measure).is_some_and(|measure| {
        term.contestants
            .iter()
            .any(|contestant| measure.failures.contains_key(contestant))
    })
}

/// Three significant digits.
pub fn shown(value: f64) -> String {
    let digits = if value == 0.0 {
        0
    } else {
        (2 - value.abs().log10().floor() as i32).clamp(0, 4)
    };
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIFICATION: &str = "\
# What wisp promises

| what | promise | proven by |
|---|---|---|
| start | 0.8 of runc | `ctr-run[wisp] <= 0.8 * ctr-run[runc]` |
| rate | 1.5 times runc | `at-once[wisp] >= 1.5 * at-once[runc]` |
| memory | 4 MiB | `memory[wisp] <= 4 MiB` |
";

    fn results(wisp: f64) -> Results {
        let mut results = Results::default();
        results.add("ctr-run", Unit::Milliseconds, "wisp", wisp);
        results.add("ctr-run", Unit::Milliseconds, "runc", 100.0);
        results.add("memory", Unit::Mebibytes, "wisp", 4.5);
        results
    }

    #[test]
    fn each_row_is_a_promise() {
        let promises = read(SPECIFICATION).expect("specification");
        let names: Vec<&str> = promises.iter().map(|p| p.what.as_str()).collect();
        assert_eq!(names, ["start", "rate", "memory"]);
    }

    #[test]
    fn kept_broken_and_open_are_told_apart() {
        let promises = read(SPECIFICATION).expect("specification");
        let verdict = |n: usize, wisp| promises[n].verdict(&results(wisp)).expect("verdict");
        assert!(matches!(verdict(0, 80.0), Verdict::Kept(_)));
        assert!(matches!(verdict(0, 81.0), Verdict::Broken(_)));
        assert!(matches!(verdict(1, 80.0), Verdict::Open(_)));
        match verdict(2, 80.0) {
            Verdict::Broken(said) => assert_eq!(said, "4.50 MiB, promised ≤ 4 MiB"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_several_the_best_counts() {
        let text = SPECIFICATION.replace("1.5 * at-once[runc]", "1.5 * at-once[runc, crun, none]");
        let promises = read(&text).expect("specification");
        let mut results = results(80.0);
        for (contestant, rate) in [("wisp", 15.0), ("runc", 8.0), ("crun", 10.0)] {
            results.add("at-once", Unit::PerSecond, contestant, rate);
        }
        let verdict = promises[1].verdict(&results).expect("verdict");
        let said = "1.50 of at-once[runc, crun, none] (15.0 to 10.0 per s), promised ≥ 1.5";
        assert_eq!(verdict, Verdict::Kept(said.to_owned()));
    }

    #[test]
    fn what_wisp_cannot_do_is_broken() {
        let promises = read(SPECIFICATION).expect("specification");
        let mut results = results(80.0);
        results.failed("at-once", Unit::PerSecond, "wisp");
        let verdict = promises[1].verdict(&results).expect("verdict");
        assert_eq!(verdict, Verdict::Broken("at-once[wisp] failed".to_owned()));
    }

    #[test]
    fn a_row_without_a_formula_is_named() {
        let text = SPECIFICATION.replace("`memory[wisp] <= 4 MiB`", "memory");
        let error = format!("{:#}", read(&text).expect_err("no formula"));
        assert!(error.contains("line 7"), "{error}");
    }

    #[test]
    fn other_units_than_measured_are_refused() {
        let text = SPECIFICATION.replace("4 MiB`", "4 ms`");
        let promises = read(&text).expect("specification");
        assert!(promises[2].verdict(&results(1.0)).is_err());
    }

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(shown(0.123_456), "0.123");
        assert_eq!(shown(12.345), "12.3");
        assert_eq!(shown(1234.5), "1234");
        assert_eq!(shown(0.0), "0");
    }
}
