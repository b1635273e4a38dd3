//! What happens when something dies, stalls, vanishes or runs out: a guest, a
//! shim, containerd, a client, a reader, a bundle, a cgroup, a disk.

mod clock;
mod creation;
mod removal;
mod restarts;
mod scarcity;
mod shims;
mod stall;
mod streams;
mod unmounts;

use super::{Body, Case, cases};

/// All of them.
pub fn all() -> Vec<Case> {
    [
        shims::cases(),
        creation::cases(),
        streams::cases(),
        removal::cases(),
        unmounts::cases(),
        scarcity::cases(),
        restarts::cases(),
        clock::clock_cases(),
    ]
    .concat()
}

fn faults(tests: &[(&'static str, Body)]) -> Vec<Case> {
    cases("faults", tests)
}
