//! `[compiler]`: the program that compiles, and its bounds.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// A day: whoever waits longer has hung.
const TIMEOUT_SECONDS: RangeInclusive<u64> = 1..=86_400;
/// Less is not enough for the smallest program, more than any machine has is a
/// slip of the pen.
const MEMORY_MIB: RangeInclusive<u64> = 64..=1 << 20;
const THREADS: RangeInclusive<u64> = 1..=256;
/// Offsets in a WebAssembly binary and in its code have 32 bits.
const SIZE_MIB: RangeInclusive<u64> = 1..=4095;

/// The program that compiles, and what one compilation may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compiler {
    /// An absolute path; `wisp` beside the running executable when left out.
    pub path: Option<PathBuf>,
    /// How long compiling one program may take, in seconds.
    pub timeout_seconds: u64,
    /// How much memory the compiler may use for one program, in MiB.
    pub memory_mib: u64,
    /// On how many threads it compiles; as many as there are processors, and
    /// at most eight, when left out.
    pub threads: Option<u32>,
    /// How large a program may be, in MiB.
    pub max_program_mib: u64,
    /// How large its code may be, in MiB.
    pub max_code_mib: u64,
}

impl Default for Compiler {
    fn default() -> Self {
        Self {
            path: None,
            timeout_seconds: 120,
            memory_mib: 2048,
            threads: None,
            max_program_mib: 64,
            max_code_mib: 512,
        }
    }
}

impl Compiler {
    /// [`Self::timeout_seconds`] as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// The first field that cannot be, and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(path) = &self.path {
            crate::absolute("compiler.path", path)?;
        }
        let numbers = [
            (
                "compiler.timeout_seconds",
                self.timeout_seconds,
                TIMEOUT_SECONDS,
            ),
            ("compiler.memory_mib", self.memory_mib, MEMORY_MIB),
            (
                "compiler.threads",
                self.threads.map_or(1, u64::from),
                THREADS,
            ),
            ("compiler.max_program_mib", self.max_program_mib, SIZE_MIB),
            ("compiler.max_code_mib", self.max_code_mib, SIZE_MIB),
        ];
        for (field, value, range) in numbers {
            if !range.contains(&value) {
                let (least, most) = (range.start(), range.end());
                return Err((field, format!("{value} is not between {least} and {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_bounds() {
        assert_eq!(Compiler::default().check(), Ok(()));
    }

    #[test]
    fn a_number_out_of_its_bounds_is_an_error_that_names_both() {
        type Set = fn(&mut Compiler, u64);
        let cases: [(Set, &str, [u64; 2]); 4] = [
            (
                |c, n| c.timeout_seconds = n,
                "compiler.timeout_seconds",
                [0, 86_401],
            ),
            (
                |c, n| c.memory_mib = n,
                "compiler.memory_mib",
                [63, u64::MAX],
            ),
            (
                |c, n| c.max_program_mib = n,
                "compiler.max_program_mib",
                [0, 4096],
            ),
            (
                |c, n| c.max_code_mib = n,
                "compiler.max_code_mib",
                [0, 4096],
            ),
        ];
        for (set, name, values) in cases {
            for value in values {
                let mut compiler = Compiler::default();
                set(&mut compiler, value);
                let (field, problem) = compiler.check().expect_err(name);
                assert_eq!(field, name);
                assert!(problem.starts_with(&format!("{value} is not")), "{problem}");
            }
        }
        for threads in [0, 257] {
            let compiler = Compiler {
                threads: Some(threads),
                ..Compiler::default()
            };
            assert_eq!(compiler.check().expect_err("refused").0, "compiler.threads");
        }
    }
}
