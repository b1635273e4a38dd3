//! Stopping all processes of a cgroup, and letting them go on.

use std::io;

use super::{Cgroup, Version};
use crate::error::ContainerError;

impl Cgroup {
    /// Asks the kernel to stop all processes, or to let them go on. It answers
    /// at once; [`Self::is_frozen`] says when they have stopped. May be asked
    /// again, which version 1 needs now and then: it gives up on a process that
    /// is being forked.
    ///
    /// # Errors
    /// When there is no freezer on this node, no such cgroup, or the kernel
    /// refuses.
    pub fn freeze(&self, stop: bool) -> Result<(), ContainerError> {
        let (file, value) = match (Version::of_node(), stop) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, true) => ("cgroup.freeze", "1"),
            (Version::V2, false) => ("cgroup.freeze", "0"),
        };
        self.write("freezer", file, value)
            .map_err(|error| self.error(if stop { "freeze" } else { "thaw" }, &error))
    }

    /// Whether all processes have been stopped.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn is_frozen(&self) -> Result<bool, ContainerError> {
        self.frozen().map_err(|error| self.error("look at", &error))
    }

    fn frozen(&self) -> io::Result<bool> {
        Ok(match Version::of_node() {
            Version::V1 => self.read("freezer", "freezer.state")?.trim() == "FROZEN",
            Version::V2 => self
                .read("freezer", "cgroup.events")?
                .lines()
                .any(|line| line == "frozen 1"),
        })
    }
}
