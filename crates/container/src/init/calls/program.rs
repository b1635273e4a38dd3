//! From a list of calls to a program for the kernel.
//!
//! The numbers of calls are a sorted sequence of ranges with one answer each,
//! in which the program searches by halves. That makes it quick to install, too:
//! the kernel runs it once for each number there is, to know which calls are
//! always allowed.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};

/// What a call is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is made.
    Allow,
    /// It is made if all checks of one of these lists hold; else it fails.
    If(&'static [&'static [Check]]),
    /// It fails as if the kernel had no such call.
    Missing,
    /// It fails with EPERM.
    Deny,
    /// The process ends.
    Kill,
}

/// What an argument must be. Of C's `int`s the kernel looks at 32 bits only,
/// and so does this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The argument at this place has this value.
    Is(u32, u32),
    /// Of the argument at the first place, the bits of the second number have
    /// the values of the third.
    Bits(u32, u32, u32),
    /// The argument at this place is a null pointer, or zero with 64 bits.
    Null(u32),
}

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Calls of another kind begin here (x32 of x86-64), and no number is as high.
const FOREIGN: u32 = 0x4000_0000;

/// The program that answers these calls so, and denies all others; `None` if
/// they are too many for one.
pub fn assemble(mut calls: Vec<(libc::c_long, Answer)>) -> Option<Vec<sock_filter>> {
    // A stable order: of two answers for a call the later one counts.
    calls.sort_by_key(|(number, _)| *number);
    let mut ranges: Vec<(u32, Answer)> = vec![(0, Answer::Deny)];
    let mut add = |from: u32, answer: Answer| match ranges.last_mut() {
        Some((last, before)) if *last == from => *before = answer,
        Some((_, before)) if *before == answer => {}
        _ => ranges.push((from, answer)),
    };
    let mut next = 0;
    for (number, answer) in calls {
        let Ok(number) = u32::try_from(number) else {
            continue;
        };
        if number > next {
            add(next, Answer::Deny);
        }
        add(number, answer);
        next = number + 1;
    }
    add(next, Answer::Deny);
    add(FOREIGN, Answer::Kill);

    let mut draft = Draft::default();
    draft.put(load(ARCHITECTURE));
    draft.jump(BPF_JEQ, ARCH, Target::Next, Target::Answer(Answer::Kill));
    draft.put(load(NUMBER));
    draft.search(&ranges);
    draft.finish()
}

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Next,
    /// To a label that is put later.
    Label(usize),
    /// To the end, with this answer.
    Answer(Answer),
}

/// A program whose jumps have no distances yet. Each answer is there once, at
/// the end: what installing a program costs grows with its length.
#[derive(Default)]
struct Draft {
    steps: Vec<(sock_filter, Target, Target)>,
    /// The places of the labels.
    labels: Vec<usize>,
}

impl Draft {
    fn put(&mut self, step: sock_filter) {
        self.steps.push((step, Target::Next, Target::Next));
    }

    fn jump(&mut self, kind: u32, value: u32, yes: Target, no: Target) {
        self.steps.push((jump(kind, value), yes, no));
    }

    fn label(&mut self) -> usize {
        self.labels.push(0);
        self.labels.len() - 1
    }

    fn place(&mut self, label: usize) {
        self.labels[label] = self.steps.len();
    }

    /// The part that answers calls within `ranges`, with the number loaded.
    fn search(&mut self, ranges: &[(u32, Answer)]) {
        match ranges {
            [] => {}
            [(_, Answer::If(alternatives))] => self.conditional(alternatives),
            [(_, answer)] => self.put(ret(*answer)),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let far = self.label();
                let yes = Self::at_once(high).unwrap_or(Target::Label(far));
                let no = Self::at_once(low).unwrap_or(Target::Next);
                self.jump(BPF_JGE, high[0].0, yes, no);
                if no == Target::Next {
                    self.search(low);
                }
                self.place(far);
                if yes == Target::Label(far) {
                    self.search(high);
                }
            }
        }
    }

    /// The answer to calls within `ranges`, if it is one for all.
    fn at_once(ranges: &[(u32, Answer)]) -> Option<Target> {
        match ranges {
            [(_, Answer::If(_))] => None,
            [(_, answer)] => Some(Target::Answer(*answer)),
            _ => None,
        }
    }

    fn conditional(&mut self, alternatives: &[&[Check]]) {
        for checks in alternatives {
            let otherwise = self.label();
            let no = Target::Label(otherwise);
            for (index, check) in checks.iter().enumerate() {
                let yes = match index + 1 == checks.len() {
                    true => Target::Answer(Answer::Allow),
                    false => Target::Next,
                };
                match *check {
                    Check::Is(place, value) => {
                        self.put(load(argument(place)));
                        self.jump(BPF_JEQ, value, yes, no);
                    }
                    Check::Bits(place, mask, value) => {
                        self.put(load(argument(place)));
                        self.put(statement(BPF_ALU | BPF_AND | BPF_K, mask));
                        self.jump(BPF_JEQ, value, yes, no);
                    }
                    Check::Null(place) => {
                        self.put(load(argument(place)));
                        self.jump(BPF_JEQ, 0, Target::Next, no);
                        self.put(load(argument(place) + 4));
                        self.jump(BPF_JEQ, 0, yes, no);
                    }
                }
            }
            self.place(otherwise);
        }
        self.put(ret(Answer::Deny));
    }

    /// Puts the answers at the end and the distances into the jumps; `None` if
    /// one is too far, because distances have eight bits.
    fn finish(self) -> Option<Vec<sock_filter>> {
        const ANSWERS: [Answer; 4] = [Answer::Allow, Answer::Deny, Answer::Kill, Answer::Missing];
        let length = self.steps.len();
        let mut program = Vec::with_capacity(length + ANSWERS.len());
        for (at, (step, yes, no)) in self.steps.iter().enumerate() {
            let distance = |target: Target| {
                let to = match target {
                    Target::Next => at + 1,
                    Target::Label(label) => *self.labels.get(label)?,
                    Target::Answer(answer) => {
                        length + ANSWERS.iter().position(|known| *known == answer)?
                    }
                };
                u8::try_from(to.checked_sub(at + 1)?).ok()
            };
            program.push(sock_filter {
                jt: distance(*yes)?,
                jf: distance(*no)?,
                ..*step
            });
        }
        program.extend(ANSWERS.map(ret));
        Some(program)
    }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn ret(answer: Answer) -> sock_filter {
    let errno = |errno: i32| SECCOMP_RET_ERRNO | errno.unsigned_abs();
    statement(
        BPF_RET | BPF_K,
        match answer {
            Answer::Allow => SECCOMP_RET_ALLOW,
            Answer::Missing => errno(libc::ENOSYS),
            Answer::If(_) | Answer::Deny => errno(libc::EPERM),
            Answer::Kill => SECCOMP_RET_KILL_PROCESS,
        },
    )
}

fn jump(kind: u32, value: u32) -> sock_filter {
    statement(BPF_JMP | kind | BPF_K, value)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        // All codes have eight bits.
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does; answers what it returns.
    fn run(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
        let data = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => ARCH,
            offset => {
                let argument = arguments[((offset - 16) / 8) as usize];
                (argument >> (8 * (offset % 8))) as u32
            }
        };
        let (mut at, mut value) = (0, 0u32);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                value = data(step.k);
            } else if code == BPF_ALU | BPF_AND | BPF_K {
                value &= step.k;
            } else if code == BPF_JMP | BPF_JEQ | BPF_K || code == BPF_JMP | BPF_JGE | BPF_K {
                let holds = match code {
                    code if code == BPF_JMP | BPF_JEQ | BPF_K => value == step.k,
                    _ => value >= step.k,
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            } else {
                return step.k;
            }
        }
    }

    fn returned(answer: Answer) -> u32 {
        ret(answer).k
    }

    #[test]
    fn each_call_has_its_answer_and_all_others_are_denied() {
        // About as many as there are, and more scattered.
        let calls: Vec<_> = (0..300)
            .step_by(3)
            .map(|number| {
                let answers = [Answer::Allow, Answer::Missing, Answer::Kill, Answer::Deny];
                (number, answers[(number as usize / 3) % 4])
            })
            .collect();
        let program = assemble(calls.clone()).expect("a program");
        for number in 0..1000u32 {
            let expected = calls
                .iter()
                .find(|(known, _)| *known == libc::c_long::from(number))
                .map_or(Answer::Deny, |(_, answer)| *answer);
            assert_eq!(
                run(&program, number, [0; 6]),
                returned(expected),
                "{number}"
            );
        }
        for number in [FOREIGN, FOREIGN + 3, u32::MAX] {
            assert_eq!(run(&program, number, [0; 6]), returned(Answer::Kill));
        }
    }

    #[test]
    fn what_is_too_long_is_none_and_not_a_wrong_program() {
        let calls = (0..3000).step_by(3).map(|number| (number, Answer::Allow));
        assert!(assemble(calls.collect()).is_none());
    }

    #[test]
    fn one_list_of_checks_must_hold() {
        const RULE: Answer = Answer::If(&[
            &[Check::Is(0, 7), Check::Null(4)],
            &[Check::Bits(1, 0xf0, 0x30)],
        ]);
        let program = assemble(vec![(5, RULE), (6, Answer::Allow)]).expect("a program");
        for (arguments, allowed) in [
            ([7, 0, 0, 0, 0, 0], true),
            ([7, 0, 0, 0, 1, 0], false),
            ([7, 0, 0, 0, 1 << 40, 0], false),
            ([8, 0, 0, 0, 0, 0], false),
            ([8, 0x3f, 0, 0, 1, 0], true),
            ([8, 0x2f, 0, 0, 1, 0], false),
            // The upper half of an int is nobody's business.
            ([7 | 1 << 40, 0, 0, 0, 0, 0], true),
        ] {
            let expected = if allowed { Answer::Allow } else { Answer::Deny };
            assert_eq!(
                run(&program, 5, arguments),
                returned(expected),
                "{arguments:?}"
            );
        }
        assert_eq!(run(&program, 6, [0; 6]), returned(Answer::Allow));
    }
}
