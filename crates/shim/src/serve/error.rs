//! Why calls are refused, and the codes that say so: those of runc's shim.

use containerd_shim::protos::ttrpc::{self, Code, get_status};
use wisp_container::ContainerError;

/// Why a call on a task is refused.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Not in the right state for the call.
    #[error("cannot {what} {name}: it is {state}")]
    State {
        /// The call.
        what: &'static str,
        /// The container or its process.
        name: String,
        /// Its state in words.
        state: &'static str,
    },
    /// The process has not been started.
    #[error("{0}: process not created")]
    NoProcess(String),
    /// The process has ended.
    #[error("{0}: process already finished")]
    Finished(String),
    /// There is none of that name (any more).
    #[error("{0} not found")]
    NotFound(String),
    /// There is one of that name.
    #[error("{0} already exists")]
    Exists(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The container itself refused.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The signal could not be sent.
    #[error("signal {name}: {source}")]
    Signal {
        /// The container or its process.
        name: String,
        /// The kernel's answer.
        source: nix::errno::Errno,
    },
    /// The container did not stop in time.
    #[error("{0}: not all processes have stopped; it goes on")]
    NotFrozen(String),
}

impl From<TaskError> for ttrpc::Error {
    fn from(error: TaskError) -> Self {
        let code = match &error {
            TaskError::NoProcess(_) => Code::FAILED_PRECONDITION,
            TaskError::Finished(_) | TaskError::NotFound(_) => Code::NOT_FOUND,
            TaskError::Exists(_) => Code::ALREADY_EXISTS,
            // There are better codes, and who compares with runc expects this.
            TaskError::State { .. }
            | TaskError::Invalid(_)
            | TaskError::Container(_)
            | TaskError::Signal { .. }
            | TaskError::NotFrozen(_) => Code::UNKNOWN,
        };
        status(code, error.to_string())
    }
}

/// An answer with `code`.
pub fn status(code: Code, text: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, text.into()))
}

/// The answer to what wisp does not do.
pub fn unimplemented(what: &str) -> ttrpc::Error {
    status(
        Code::UNIMPLEMENTED,
        format!("{what} is not implemented by wisp"),
    )
}
