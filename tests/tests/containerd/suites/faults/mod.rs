//! What happens when something dies, stalls, vanishes or runs out: a guest, a
//! shim, containerd, a client, a reader, a bundle, a cgroup, a disk.

mod creation;
mod removal;
mod restarts;
mod scarcity;
mod shims;
mod stall;
mod streams;

use super::{Body, Case, cases};

/// All of them.
pub fn all() -> Vec<Case> {
    [
        shims::cases(),
        creation::cases(),
        streams::cases(),
        removal::cases(),
        scarcity::cases(),
        restarts::cases(),
    ]
    .concat()
}

fn faults(tests: &[(&'static str, Body)]) -> Vec<Case> {
    cases("faults", tests)
}
