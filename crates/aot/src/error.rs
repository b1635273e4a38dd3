use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;

/// Why there is no code for a program.
#[derive(Debug, thiserror::Error)]
pub enum AotError {
    #[error("read the program {digest}: {source}")]
    Program { digest: Digest, source: io::Error },
    #[error(
        "the program's bytes have the digest {found}, not {expected}: its content is damaged, \
         pull the image again"
    )]
    Mismatch { expected: Digest, found: Digest },
    #[error(
        "start the compiler {}: {source}; name it with compiler.path in the settings",
        path.display()
    )]
    Start { path: PathBuf, source: io::Error },
    #[error(
        "the compiler did not finish within {} s; compiler.timeout_seconds in the settings \
         gives it more",
        .0.as_secs()
    )]
    Timeout(Duration),
    #[error(
        "the compiler was killed by signal {0}: the node or the control group that it runs in \
         is out of memory, or somebody has done it"
    )]
    Killed(i32),
    /// In MiB.
    #[error("it is larger than {0} MiB; compiler.max_program_mib in the settings allows more")]
    TooLarge(u64),
    #[error("the compiler {} wrote no code", .0.display())]
    NoCode(PathBuf),
    /// The compiler's own words.
    #[error("{0}")]
    Compile(String),
    /// What a process that compiled the same program at the same time was told.
    #[error("{0}")]
    Shared(String),
    #[error(
        "another process has been compiling the program for {} s; compiler.timeout_seconds in \
         the settings gives it more",
        .0.as_secs()
    )]
    Waited(Duration),
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
}

impl AotError {
    /// Whether whoever compiles the same program would be told the same.
    pub(crate) fn is_the_programs(&self) -> bool {
        !matches!(
            self,
            Self::Program { .. }
                | Self::Mismatch { .. }
                | Self::Start { .. }
                | Self::Waited(_)
                | Self::Io { .. }
        )
    }
}
