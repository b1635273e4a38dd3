//! From the spec's device rules to the BPF program that decides by them.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::bpf::{Instruction, Register};

// `enum bpf_cgroup_dev_type` and `BPF_DEVCG_ACC_*` of linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

/// A rule; `None` stands for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl Rule {
    /// Whether it says the same of every device and access.
    fn decides_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
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

/// The program for `spec`'s rules, of which a later one has the last word;
/// what none speaks of is denied. `None` if everything is allowed.
///
/// # Errors
/// A rule that means nothing, named.
pub fn of(spec: &[LinuxDeviceCgroup]) -> Result<Option<Vec<Instruction>>, String> {
    let mut rules = Vec::new();
    for (index, rule) in spec.iter().enumerate() {
        let read = read(rule)
            .map_err(|reason| format!("linux.resources.devices[{index}] ({rule}): {reason}"))?;
        rules.extend(read);
    }
    rules.extend(DEFAULTS);
    // What comes before a rule about everything has no say any more.
    if let Some(last) = rules.iter().rposition(Rule::decides_all) {
        rules.drain(..last);
    }
    if rules.iter().all(|rule| rule.allow) && rules[0].decides_all() {
        return Ok(None);
    }
    Ok(Some(compile(&rules)))
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

/// Goes through the rules from the last to the first and takes from the access
/// that is asked for what is allowed, until nothing is left of it.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    use Register::{Access, Answer, Context, Kind, Major, Minor};
    // `struct bpf_cgroup_dev_ctx`: access << 16 | type, major, minor.
    let mut program = vec![
        Instruction::load(Access, Context, 0),
        Instruction::copy(Kind, Access),
        Instruction::and(Kind, 0xffff),
        Instruction::shift_right(Access, 16),
        Instruction::load(Major, Context, 4),
        Instruction::load(Minor, Context, 8),
    ];
    for rule in rules.iter().rev() {
        let verdict = if rule.allow {
            vec![
                Instruction::and(Access, !rule.access),
                Instruction::skip_if_not(Access, 0, 2),
                Instruction::set(Answer, 1),
                Instruction::exit(),
            ]
        } else {
            vec![
                Instruction::skip_if_any_bit(Access, rule.access, 1),
                Instruction::skip(2),
                Instruction::set(Answer, 0),
                Instruction::exit(),
            ]
        };
        let conditions: Vec<_> = [(Kind, rule.kind), (Major, rule.major), (Minor, rule.minor)]
            .into_iter()
            .filter_map(|(register, wanted)| Some((register, wanted?)))
            .collect();
        for (index, &(register, wanted)) in conditions.iter().enumerate() {
            let rest = conditions.len() - index - 1 + verdict.len();
            program.push(Instruction::skip_if_not(register, wanted, rest));
        }
        program.extend(verdict);
    }
    program.extend([Instruction::set(Answer, 0), Instruction::exit()]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;
    use serde_json::{Value, json};

    fn rules(value: Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(value).expect("rules")
    }

    fn allows(spec: &[LinuxDeviceCgroup], kind: i32, device: (i32, i32), access: i32) -> bool {
        match of(spec).expect("program") {
            None => true,
            Some(program) => super::super::bpf::run(
                &program,
                [access << 16 | kind, device.0, device.1].map(|n| n.cast_unsigned()),
            ),
        }
    }

    #[test]
    fn the_default_devices_can_be_used_and_no_other() {
        for spec in [
            rules(json!([])),
            rules(json!([{ "allow": false, "access": "rwm" }])),
        ] {
            assert!(allows(&spec, CHARACTER, (1, 3), READ | WRITE));
            assert!(allows(&spec, CHARACTER, (136, 7), READ | WRITE));
            assert!(allows(&spec, BLOCK, (8, 0), MKNOD));
            assert!(!allows(&spec, BLOCK, (8, 0), READ));
            assert!(!allows(&spec, BLOCK, (8, 0), READ | MKNOD));
            assert!(!allows(&spec, CHARACTER, (1, 1), READ));
            assert!(!allows(&spec, BLOCK, (1, 3), WRITE));
        }
    }

    #[test]
    fn a_device_that_was_given_can_be_used_as_given() {
        let spec = rules(json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
            { "allow": true, "type": "b", "major": 8, "access": "r" },
        ]));
        assert!(allows(&spec, CHARACTER, (10, 229), READ | WRITE));
        assert!(!allows(&spec, CHARACTER, (10, 230), READ));
        assert!(allows(&spec, BLOCK, (8, 17), READ));
        assert!(!allows(&spec, BLOCK, (8, 17), READ | WRITE));
    }

    #[test]
    fn the_later_rule_has_the_last_word() {
        let spec = rules(json!([
            { "allow": true, "access": "rwm" },
            { "allow": false, "type": "b", "major": 8, "access": "w" },
        ]));
        assert!(allows(&spec, BLOCK, (8, 0), READ));
        assert!(!allows(&spec, BLOCK, (8, 0), READ | WRITE));
        assert!(allows(&spec, BLOCK, (9, 0), READ | WRITE));
        let pieces = rules(json!([
            { "allow": true, "type": "b", "major": 8, "access": "r" },
            { "allow": true, "type": "b", "major": 8, "access": "w" },
        ]));
        assert!(allows(&pieces, BLOCK, (8, 0), READ | WRITE));
    }

    #[test]
    fn a_privileged_container_needs_no_program() {
        let spec = rules(json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "access": "rwm" },
        ]));
        assert_eq!(of(&spec), Ok(None));
    }

    #[test]
    fn a_rule_that_means_nothing_is_named() {
        for (key, value) in [("access", json!("rx")), ("major", json!(-2))] {
            let mut rule = json!({ "allow": true, "type": "c", "access": "r" });
            rule[key] = value;
            let error = of(&rules(json!([rule]))).expect_err("no rule");
            assert!(error.contains("devices[0]"), "{error}");
            assert!(error.contains(key), "{error}");
        }
        let silent = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::B)
            .build()
            .expect("rule");
        assert!(!allows(&[silent], BLOCK, (8, 0), READ));
    }
}
