//! Variables of the environment, as OpenTelemetry wants them read
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>):
//! an empty one is none, and one that is malformed is told of and ignored.

use std::time::Duration;

use percent_encoding::percent_decode_str;

/// What 0 milliseconds are: no limit.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// The most of a value that is repeated to say that it is wrong.
const SHOWN: usize = 100;

/// The variables of a container.
pub struct Variables<'a> {
    all: &'a [(String, String)],
    tell: &'a dyn Fn(&str),
}

/// One of them, and what is wrong with it if something is.
#[derive(Debug, Clone, Copy)]
pub struct Variable<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

impl<'a> Variables<'a> {
    /// `tell` is told what is wrong, a line each.
    pub fn new(all: &'a [(String, String)], tell: &'a dyn Fn(&str)) -> Self {
        Self { all, tell }
    }

    /// The first of `names` that is there.
    pub fn find(&self, names: &[&str]) -> Option<Variable<'a>> {
        names.iter().find_map(|wanted| {
            let (name, value) = self.all.iter().find(|(name, _)| name == wanted)?;
            let value = value.trim();
            (!value.is_empty()).then_some(Variable { name, value })
        })
    }

    /// Tells what is wrong with `variable` and what comes of it.
    pub fn complain(&self, variable: Variable<'_>, problem: &str) {
        let shown: String = variable.value.chars().take(SHOWN).collect();
        self.complain_unseen(variable, &format!("{shown:?} {problem}"));
    }

    /// The same of a value that is a secret.
    pub fn complain_unseen(&self, variable: Variable<'_>, problem: &str) {
        (self.tell)(&format!("{}: {problem}", variable.name));
    }

    /// The first of `names` that is there, if it is one of `known`, in letters of
    /// any size; else that of them which comes first.
    pub fn choice<T: Copy>(&self, names: &[&str], known: &[(&str, T)], default: T) -> T {
        let Some(variable) = self.find(names) else {
            return default;
        };
        let is = |(name, _): &&(&str, T)| name.eq_ignore_ascii_case(variable.value);
        match known.iter().find(is) {
            Some((_, choice)) => *choice,
            None => {
                let all: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                let problem = format!("is ignored: it is none of {}", all.join(", "));
                self.complain(variable, &problem);
                default
            }
        }
    }

    /// A whole number within `range`.
    pub fn number(
        &self,
        names: &[&str],
        range: std::ops::RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        let Some(variable) = self.find(names) else {
            return default;
        };
        match variable.value.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = range.into_inner();
                let problem = format!(
                    "is ignored: it is not a number from {least} to {most}; it is {default}"
                );
                self.complain(variable, &problem);
                default
            }
        }
    }

    /// Milliseconds, of which 0 are as many as it takes.
    pub fn time(&self, names: &[&str], default: u64) -> Duration {
        const MOST: usize = UNLIMITED.as_millis() as usize;
        match self.number(names, 0..=MOST, default as usize) {
            0 => UNLIMITED,
            milliseconds => Duration::from_millis(milliseconds as u64),
        }
    }

    /// Says that variables which others read are not read here.
    pub fn not_read(&self, names: &[&str], instead: &str) {
        for name in names {
            if let Some(variable) = self.find(&[name]) {
                self.complain_unseen(variable, &format!("is ignored: {instead}"));
            }
        }
    }
}

/// The pairs of a list `name=value,…` as W3C Baggage writes it, without
/// properties; values are percent-encoded. `None` stands for one that is malformed.
pub fn pairs(text: &str) -> impl Iterator<Item = Option<(&str, String)>> {
    let members = text.split(',').map(str::trim);
    members.filter(|member| !member.is_empty()).map(|member| {
        let (name, value) = member.split_once('=')?;
        let name = name.trim();
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        (!name.is_empty()).then(|| (name, value.into_owned()))
    })
}

#[cfg(test)]
pub mod tests {
    use std::cell::RefCell;

    use super::*;

    pub fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        variables.iter().map(owned).collect()
    }

    #[test]
    fn what_is_empty_is_not_there_and_what_is_wrong_is_told() {
        let all = environment(&[
            ("EMPTY", " "),
            ("TEXT", "x\ny"),
            ("FIVE", "5"),
            ("HTTP", "Json"),
        ]);
        let told = RefCell::new(Vec::new());
        let tell = |line: &str| told.borrow_mut().push(line.to_owned());
        let variables = Variables::new(&all, &tell);
        assert_eq!(variables.number(&["NONE", "EMPTY"], 1..=9, 7), 7);
        assert_eq!(variables.number(&["EMPTY", "FIVE"], 1..=9, 7), 5);
        let known = [("protobuf", 1), ("json", 2)];
        assert_eq!(variables.choice(&["HTTP"], &known, 1), 2);
        assert_eq!(variables.time(&["FIVE"], 3), Duration::from_millis(5));
        assert_eq!(variables.time(&["NONE"], 0), UNLIMITED);
        assert!(told.borrow().is_empty(), "{told:?}");

        assert_eq!(variables.number(&["FIVE"], 6..=9, 7), 7);
        assert_eq!(variables.number(&["TEXT"], 1..=9, 7), 7);
        assert_eq!(variables.choice(&["TEXT"], &known, 1), 1);
        variables.not_read(&["FIVE", "EMPTY"], "why");
        let expected = [
            "FIVE: \"5\" is ignored: it is not a number from 6 to 9; it is 7",
            "TEXT: \"x\\ny\" is ignored: it is not a number from 1 to 9; it is 7",
            "TEXT: \"x\\ny\" is ignored: it is none of protobuf, json",
            "FIVE: is ignored: why",
        ];
        assert_eq!(*told.borrow(), expected);
    }

    #[test]
    fn lists_have_pairs() {
        let all: Vec<_> = pairs(" a=1, b = x%2Cy=z ,, c=,=d,e,f=%ff ").collect();
        let pair = |name, value: &str| Some((name, value.to_owned()));
        let expected = [
            pair("a", "1"),
            pair("b", "x,y=z"),
            pair("c", ""),
            None,
            None,
            None,
        ];
        assert_eq!(all, expected);
    }
}
