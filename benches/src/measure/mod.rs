//! The measures, a file per subject.

pub mod at_once;
pub mod calls;
pub mod ctr_run;
pub mod http;
pub mod memory;
pub mod pods;
pub mod programs;
pub mod sizes;
