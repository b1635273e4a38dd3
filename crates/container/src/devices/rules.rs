//! The rules of a spec about devices, as the kernel means them.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

// `enum bpf_cgroup_dev_type` and `BPF_DEVCG_ACC_*` of linux/bpf.h.
pub const BLOCK: i32 = 1;
pub const CHARACTER: i32 = 2;
pub const MKNOD: i32 = 1;
pub const READ: i32 = 2;
pub const WRITE: i32 = 4;
pub const ALL: i32 = MKNOD | READ | WRITE;

/// A rule; `None` stands for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    pub kind: Option<i32>,
    pub major: Option<i32>,
    pub minor: Option<i32>,
    pub access: i32,
}

impl Rule {
    /// Whether it says the same of every device and access.
    pub fn decides_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// As the kernel's `admin-guide/cgroup-v1/devices` writes it.
    pub fn line(&self) -> String {
        let kind = match self.kind {
            None => 'a',
            Some(BLOCK) => 'b',
            Some(_) => 'c',
        };
        let number = |number: Option<i32>| number.map_or("*".into(), |number| number.to_string());
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
            .into_iter()
            .filter_map(|(bit, letter)| (self.access & bit != 0).then_some(letter))
            .collect();
        let (major, minor) = (number(self.major), number(self.minor));
        format!("{kind} {major}:{minor} {access}")
    }

    const fn allowed(kind: i32, major: Option<i32>, minor: Option<i32>, access: i32) -> Self {
        Self {
            allow: true,
            kind: Some(kind),
            major,
            minor,
            access,
        }
    }
}

/// Where every spec starts.
const NOTHING: Rule = Rule {
    allow: false,
    kind: None,
    major: None,
    minor: None,
    access: ALL,
};

/// What every container may use, whatever its spec says: making any device
/// file, and null, zero, full, random, urandom, tty, console, ptmx and
/// the terminals of devpts.
const DEFAULTS: [Rule; 11] = [
    Rule::allowed(CHARACTER, None, None, MKNOD),
    Rule::allowed(BLOCK, None, None, MKNOD),
    Rule::allowed(CHARACTER, Some(1), Some(3), ALL),
    Rule::allowed(CHARACTER, Some(1), Some(5), ALL),
    Rule::allowed(CHARACTER, Some(1), Some(7), ALL),
    Rule::allowed(CHARACTER, Some(1), Some(8), ALL),
    Rule::allowed(CHARACTER, Some(1), Some(9), ALL),
    Rule::allowed(CHARACTER, Some(5), Some(0), ALL),
    Rule::allowed(CHARACTER, Some(5), Some(1), ALL),
    Rule::allowed(CHARACTER, Some(5), Some(2), ALL),
    Rule::allowed(CHARACTER, Some(136), None, ALL),
];

/// `spec`'s rules, of which a later one has the last word; what none speaks of
/// is denied.
///
/// # Errors
/// A rule that means nothing, named.
pub fn of(spec: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, String> {
    let mut rules = vec![NOTHING];
    for (index, rule) in spec.iter().enumerate() {
        let read = read(rule)
            .map_err(|reason| format!("linux.resources.devices[{index}] ({rule}): {reason}"))?;
        rules.extend(read);
    }
    // What comes before a rule about everything has no say any more.
    if let Some(last) = rules.iter().rposition(Rule::decides_all) {
        rules.drain(..last);
    }
    if rules.iter().all(|rule| rule.allow) {
        rules.truncate(1);
        return Ok(rules);
    }
    let denies = rules.iter().skip(1).any(|rule| !rule.allow);
    let missing = DEFAULTS
        .into_iter()
        .filter(|default| denies || !rules.contains(default))
        .collect::<Vec<_>>();
    rules.extend(missing);
    Ok(rules)
}

/// `None` for what has no effect.
fn read(rule: &LinuxDeviceCgroup) -> Result<Option<Rule>, String> {
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(BLOCK),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
        // Nobody asks a cgroup about those.
        LinuxDeviceType::P => return Ok(None),
    };
    let access = match rule.access().as_deref() {
        // A rule about all devices is about every access, as on version 1.
        _ if kind.is_none() => ALL,
        None | Some("") => {
            if rule.allow() {
                0
            } else {
                ALL
            }
        }
        Some(text) => text.chars().try_fold(0, |access, letter| match letter {
            'r' => Ok(access | READ),
            'w' => Ok(access | WRITE),
            'm' => Ok(access | MKNOD),
            other => Err(format!("access has {other:?}; it is made of r, w and m")),
        })?,
    };
    Ok((access != 0).then_some(Rule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
    }))
}

/// A device number; -1 is any, as is none.
fn number(what: &str, number: Option<i64>) -> Result<Option<i32>, String> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => match i32::try_from(number) {
            Ok(number) if number >= 0 => Ok(Some(number)),
            _ => Err(format!("there is no {what} number {number}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;
    use serde_json::{Value, json};

    fn lines(value: Value) -> Vec<String> {
        let spec: Vec<LinuxDeviceCgroup> = serde_json::from_value(value).expect("rules");
        let rules = of(&spec).expect("rules");
        rules
            .iter()
            .map(|rule| format!("{}{}", if rule.allow { '+' } else { '-' }, rule.line()))
            .collect()
    }

    #[test]
    fn rules_are_written_as_the_kernel_reads_them() {
        let rules = lines(json!([
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            { "allow": true, "type": "b", "major": 8, "access": "r" },
        ]));
        let all = "-a *:* rwm +c 1:3 rwm +b 8:* r +c *:* m +b *:* m +c 1:5 rwm +c 1:7 rwm \
                   +c 1:8 rwm +c 1:9 rwm +c 5:0 rwm +c 5:1 rwm +c 5:2 rwm +c 136:* rwm";
        assert_eq!(rules.join(" "), all);
    }

    #[test]
    fn a_default_that_was_taken_away_is_given_back() {
        assert_eq!(lines(json!([]))[0], "-a *:* rwm");
        let rules = lines(json!([
            { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            { "allow": false, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        ]));
        let last = rules.iter().rposition(|rule| rule.ends_with("c 1:3 rwm"));
        assert_eq!(rules[last.expect("rule")], "+c 1:3 rwm");
    }

    #[test]
    fn a_privileged_container_has_one_rule() {
        let everything = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "access": "rwm" },
        ]);
        assert_eq!(lines(everything), ["+a *:* rwm"]);
    }

    #[test]
    fn a_rule_that_means_nothing_is_named() {
        for (key, value) in [("access", json!("rx")), ("major", json!(-2))] {
            let mut rule = json!({ "allow": true, "type": "c", "access": "r" });
            rule[key] = value;
            let error = of(&serde_json::from_value::<Vec<_>>(json!([rule])).expect("rules"))
                .expect_err("no rule");
            assert!(error.contains("devices[0]"), "{error}");
            assert!(error.contains(key), "{error}");
        }
        let silent = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::B)
            .build()
            .expect("rule");
        assert_eq!(of(&[silent]), of(&[]));
    }
}
