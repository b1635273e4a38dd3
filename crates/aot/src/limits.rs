use std::num::NonZero;
use std::thread::available_parallelism;

use wisp_config::Config;

/// More threads than these are of little use to one program.
const MOST_THREADS: u32 = 8;

/// Bytes in a MiB.
#[cfg(feature = "compiler")]
const MIB: u64 = 1 << 20;

/// What compiling one program may use. The compiler holds itself to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompilerLimits {
    /// The size of the program, in MiB.
    pub program_mib: u64,
    /// The size of the code made from it, in MiB.
    pub code_mib: u64,
    /// Memory beside the threads' stacks, in MiB.
    pub memory_mib: u64,
    /// Threads that compile.
    pub threads: u32,
    /// Time of all processors together, in seconds.
    pub cpu_seconds: u64,
}

impl CompilerLimits {
    /// The limits of the settings.
    pub fn from_config(config: &Config) -> Self {
        let compiler = &config.compiler;
        let threads = compiler.threads.unwrap_or_else(|| {
            let processors = available_parallelism().map_or(1, NonZero::get);
            u32::try_from(processors).map_or(MOST_THREADS, |n| n.min(MOST_THREADS))
        });
        Self {
            program_mib: compiler.max_program_mib,
            code_mib: compiler.max_code_mib,
            memory_mib: compiler.memory_mib,
            threads,
            // Only a compiler that has lost its parent's clock gets there.
            cpu_seconds: compiler
                .timeout_seconds
                .saturating_mul(u64::from(threads))
                .saturating_add(1),
        }
    }

    /// The arguments of `wisp compile` that say the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        [
            ("max-program-mib", self.program_mib),
            ("max-code-mib", self.code_mib),
            ("memory-mib", self.memory_mib),
            ("threads", self.threads.into()),
            ("cpu-seconds", self.cpu_seconds),
        ]
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
    }
}

#[cfg(feature = "compiler")]
impl CompilerLimits {
    /// [`Self::program_mib`] in bytes.
    pub(crate) fn program(&self) -> u64 {
        self.program_mib.saturating_mul(MIB)
    }

    /// [`Self::code_mib`] in bytes.
    pub(crate) fn code(&self) -> u64 {
        self.code_mib.saturating_mul(MIB)
    }

    /// [`Self::memory_mib`] in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_mib.saturating_mul(MIB)
    }
}

/// Those of the default settings.
impl Default for CompilerLimits {
    fn default() -> Self {
        Self::from_config(&Config::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_default_to_what_there_is_but_not_to_all_of_a_large_machine() {
        let limits = CompilerLimits::default();
        assert!((1..=MOST_THREADS).contains(&limits.threads));
        let mut config = Config::default();
        config.compiler.threads = Some(64);
        config.compiler.timeout_seconds = 10;
        let limits = CompilerLimits::from_config(&config);
        assert_eq!((limits.threads, limits.cpu_seconds), (64, 641));
    }
}
