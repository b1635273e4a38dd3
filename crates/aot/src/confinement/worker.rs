//! The compiler's own work, from stdin to stdout.

use std::io::{self, Read, Write};

use rayon::ThreadPoolBuilder;

use super::{bounds, verdict};
use crate::compile::{CompileError, compile};
use crate::limits::CompilerLimits;

/// Compiles the program on stdin to stdout.
///
/// # Errors
/// A sentence.
pub(super) fn run(limits: &CompilerLimits) -> Result<(), String> {
    let threads = usize::try_from(limits.threads).unwrap_or(1);
    let stack = usize::try_from(bounds::STACK).unwrap_or(usize::MAX);
    // Before the program is there: threads that cannot be had are not its fault.
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(stack)
        .build()
        .map_err(|error| {
            format!(
                "start {threads} threads to compile on: {error}; compiler.threads and \
                 compiler.memory_mib in the settings bound them"
            )
        })?;
    let program = read(limits)?;
    let code = pool
        .install(|| compile(&program))
        .map_err(|error| explain(&error, limits))?;
    drop(program);
    if u64::try_from(code.len()).unwrap_or(u64::MAX) > limits.code() {
        return Err(verdict::code(limits));
    }
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&code)
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("write the code to stdout: {error}"))
}

fn read(limits: &CompilerLimits) -> Result<Vec<u8>, String> {
    let mut program = Vec::new();
    let result = io::stdin()
        .lock()
        .take(limits.program().saturating_add(1))
        .read_to_end(&mut program);
    match result {
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Err(verdict::memory(limits)),
        Err(error) => Err(format!("read the program from stdin: {error}")),
        Ok(length) if u64::try_from(length).is_ok_and(|length| length <= limits.program()) => {
            Ok(program)
        }
        Ok(_) => Err(verdict::program(limits.program_mib)),
    }
}

fn explain(error: &CompileError, limits: &CompilerLimits) -> String {
    match error {
        CompileError::Memory => verdict::memory(limits),
        error => error.to_string(),
    }
}
