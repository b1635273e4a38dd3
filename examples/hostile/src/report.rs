//! How attempts went.

use std::fmt::{Debug, Display};
use std::process::ExitCode;

#[derive(Default)]
pub struct Report {
    denied: usize,
    reached: usize,
}

impl Report {
    /// An attempt that should have failed, and its outcome.
    pub fn attempt<T, E: Debug>(&mut self, what: impl Display, outcome: Result<T, E>) {
        match outcome {
            Ok(_) => {
                self.reached += 1;
                println!("REACHED {what}");
            }
            Err(error) => {
                self.denied += 1;
                println!("denied {what}: {error:?}");
            }
        }
    }

    /// One that was allowed, and failed for another reason.
    pub fn in_vain(&self, what: impl Display, why: impl Display) {
        println!("in vain {what}: {why}");
    }

    /// Says how many there were; the exit code tells whether all were denied.
    pub fn end(&self) -> ExitCode {
        println!("{} denied, {} reached", self.denied, self.reached);
        match self.reached {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
