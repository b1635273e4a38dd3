//! The compiler as the shim runs it: how it is confined, and what becomes of
//! programs made to do harm.
//!
//! As root all of it; as another user what does not take root.

mod bombs;
mod confinement;
mod node;
mod process;
mod programs;
