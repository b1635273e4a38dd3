//! The standard streams, kept past libcontainer's setup.
//!
//! Where one of them is `/dev/null`, libcontainer puts a read-only descriptor
//! of the container's own `/dev/null` in its place, and writing to that fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::ContainerError;

/// Copies of the three streams as the daemon handed them over.
#[derive(Debug)]
pub struct Streams {
    copies: [OwnedFd; 3],
}

impl Streams {
    /// Copies the streams, to descriptors that `execve` closes.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn save() -> Result<Self, ContainerError> {
        let copy = |stream: BorrowedFd<'_>| {
            stream
                .try_clone_to_owned()
                .map_err(|e| ContainerError::Init(format!("copy a stream: {e}")))
        };
        Ok(Self {
            copies: [
                copy(std::io::stdin().as_fd())?,
                copy(std::io::stdout().as_fd())?,
                copy(std::io::stderr().as_fd())?,
            ],
        })
    }

    /// Puts the copies back in their places.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn restore(&self) -> Result<(), ContainerError> {
        let [stdin, stdout, stderr] = &self.copies;
        dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr))
            .map_err(|e| ContainerError::Init(format!("restore a stream: {e}")))
    }
}
