//! From rules about devices to the BPF program that decides by them.

use super::bpf::{Instruction, Register};
use super::rules::Rule;

/// The program for `rules`. `None` if they allow everything.
pub fn of(rules: &[Rule]) -> Option<Vec<Instruction>> {
    match rules {
        [only] if only.allow && only.decides_all() => None,
        rules => Some(compile(rules)),
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
    use super::super::rules::{self, BLOCK, CHARACTER, MKNOD, READ, WRITE};
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroup;
    use serde_json::{Value, json};

    fn rules(value: Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(value).expect("rules")
    }

    fn allows(spec: &[LinuxDeviceCgroup], kind: i32, device: (i32, i32), access: i32) -> bool {
        match of(&rules::of(spec).expect("rules")) {
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
        assert_eq!(of(&rules::of(&spec).expect("rules")), None);
    }
}
