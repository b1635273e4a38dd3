//! How a guest ended, as an exit code.

use std::io::Write;
use std::time::Instant;

use wasmtime_wasi::I32Exit;

use crate::memory::Budget;

/// The guest returned an error from `run`.
const FAILED: i32 = 1;

/// The guest trapped: 128 + SIGABRT, what a native program would have died of.
pub const TRAPPED: i32 = 134;

/// The guest could not be started.
pub const NOT_STARTED: i32 = 125;

/// The exit code for what a run that began then gave. A trap is told on stderr, and, if the
/// guest failed, that it had been refused memory.
pub fn code(outcome: wasmtime::Result<Result<(), ()>>, budget: &Budget, begun: Instant) -> i32 {
    let code = match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(())) => FAILED,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            // A process has eight bits for it.
            Some(I32Exit(code)) => code & 0xff,
            None => {
                complain(&format!("guest trapped: {error:?}"));
                TRAPPED
            }
        },
    };
    if code != 0
        && let Some(refused) = budget.take_refusal(begun)
    {
        complain(&refused.to_string());
    }
    code
}

/// Writes a line of our own to stderr, among the guest's.
pub fn complain(message: &str) {
    // Where stderr is gone, nobody reads it.
    let _ = writeln!(std::io::stderr(), "wisp: {message}");
}

#[cfg(test)]
mod tests {
    use wisp_capability::Limits;

    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn outcomes_have_their_codes() {
        let budget = Budget::new(Limits::default(), None, Ledger::own());
        let code = |outcome| code(outcome, &budget, Instant::now());
        assert_eq!(code(Ok(Ok(()))), 0);
        assert_eq!(code(Ok(Err(()))), 1);
        assert_eq!(code(Err(I32Exit(0).into())), 0);
        assert_eq!(code(Err(I32Exit(7).into())), 7);
        assert_eq!(code(Err(I32Exit(255).into())), 255);
        assert_eq!(code(Err(I32Exit(-1).into())), 255);
        assert_eq!(code(Err(I32Exit(256 + 3).into())), 3);
        assert_eq!(code(Err(wasmtime::Error::msg("boom"))), TRAPPED);
    }
}
