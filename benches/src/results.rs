//! Everything that one run has measured.

use crate::samples::Samples;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// What a measure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Microseconds,
    Milliseconds,
    PerSecond,
    Mebibytes,
}

impl Unit {
    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::PerSecond => "per s",
            Self::Mebibytes => "MiB",
        })
    }
}

/// One quantity: its samples by contestant.
#[derive(Clone, Debug)]
pub struct Measure {
    pub unit: Unit,
    pub of: BTreeMap<String, Samples>,
    /// Contestants that could not do it, and how often.
    pub failures: BTreeMap<String, usize>,
}

/// The quantities by name, in the order in which they were begun.
#[derive(Clone, Debug, Default)]
pub struct Results {
    measures: Vec<(String, Measure)>,
}

impl Results {
    fn measure(&mut self, name: &str, unit: Unit) -> &mut Measure {
        let known = self.measures.iter().position(|(known, _)| known == name);
        let place = known.unwrap_or_else(|| {
            let measure = Measure {
                unit,
                of: BTreeMap::new(),
                failures: BTreeMap::new(),
            };
            self.measures.push((name.to_owned(), measure));
            self.measures.len() - 1
        });
        &mut self.measures[place].1
    }

    /// Adds a sample.
    pub fn add(&mut self, name: &str, unit: Unit, contestant: &str, sample: f64) {
        self.measure(name, unit)
            .of
            .entry(contestant.to_owned())
            .or_default()
            .push(sample);
    }

    /// Notes that a contestant could not be measured.
    pub fn failed(&mut self, name: &str, unit: Unit, contestant: &str) {
        *self
            .measure(name, unit)
            .failures
            .entry(contestant.to_owned())
            .or_default() += 1;
    }

    pub fn get(&self, name: &str) -> Option<&Measure> {
        let (_, measure) = self.measures.iter().find(|(known, _)| known == name)?;
        Some(measure)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Measure)> {
        self.measures
            .iter()
            .map(|(name, measure)| (name.as_str(), measure))
    }

    /// The median of a contestant and its unit.
    pub fn median(&self, name: &str, contestant: &str) -> Option<(f64, Unit)> {
        let measure = self.get(name)?;
        Some((measure.of.get(contestant)?.median()?, measure.unit))
    }

    /// Every sample, for other tools.
    pub fn to_json(&self) -> Value {
        let measures: Vec<Value> = self
            .iter()
            .map(|(name, measure)| {
                let of: BTreeMap<&String, &[f64]> = measure
                    .of
                    .iter()
                    .map(|(contestant, samples)| (contestant, samples.all()))
                    .collect();
                json!({
                    "name": name,
                    "unit": measure.unit.to_string(),
                    "samples": of,
                    "failures": measure.failures,
                })
            })
            .collect();
        json!({ "measures": measures })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_keep_their_order_and_their_samples() {
        let mut results = Results::default();
        results.add("z", Unit::Milliseconds, "wisp", 3.0);
        results.add("a", Unit::Mebibytes, "wisp", 1.0);
        results.add("z", Unit::Milliseconds, "wisp", 5.0);
        results.failed("z", Unit::Milliseconds, "runc");

        let names: Vec<&str> = results.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "a"]);
        assert_eq!(results.median("z", "wisp"), Some((4.0, Unit::Milliseconds)));
        assert_eq!(results.median("z", "runc"), None);
        assert_eq!(results.get("z").expect("z").failures["runc"], 1);
    }
}
