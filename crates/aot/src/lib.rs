//! Compiled once per node: from a program's bytes to a file of native code
//! that every later start maps.
//!
//! [`Cache::load`] finds the code of a program by its digest, or has it
//! compiled in a process of its own. That process is `wisp compile`, a thin
//! cover over `confinement` here, which only exists with the feature `compiler`.
//! Nothing but what this node's own compiler wrote is ever loaded.

mod cache;
#[cfg(feature = "compiler")]
mod compile;
mod compiler;
#[cfg(feature = "compiler")]
mod confinement;
mod digest;
mod error;
mod key;
mod limits;
mod priority;
mod scheduling;
mod settings;

pub use cache::{Artifact, Cache, Damage, Entry, Limits, Memo, Pruned, Trailer};
#[cfg(feature = "compiler")]
pub use compile::{CompileError, compile};
pub use compiler::Compiler;
#[cfg(feature = "compiler")]
pub use confinement::{Confine, run as compile_confined};
pub use digest::{Digest, DigestError, Hasher};
pub use error::AotError;
pub use key::Key;
pub use limits::CompilerLimits;
pub use priority::lower_priority;
pub use settings::{Calls, Kind, WASMTIME_VERSION, settings};
