//! Joining a container's cgroup.

use std::fs::OpenOptions;
use std::io::{self, Write};

use super::{Cgroup, Version};
use crate::error::ContainerError;

/// What the kernel takes for the process that writes it, in whatever pid
/// namespace that is.
const OWN: &[u8] = b"0";

impl Cgroup {
    /// Moves this process, which must have one thread, here: in every hierarchy
    /// that the container is in.
    ///
    /// # Errors
    /// When the container is in none (any more), or the kernel refuses.
    pub fn add_own(&self) -> Result<(), ContainerError> {
        self.move_here()
            .map_err(|error| self.error("put a process into the cgroup of", &error))
    }

    fn move_here(&self) -> io::Result<()> {
        let file = match Version::of_node() {
            // Without the lock that moving whole processes takes.
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        let mut joined = false;
        for dir in self.dirs() {
            match OpenOptions::new().write(true).open(dir.join(file)) {
                Ok(mut open) => open.write_all(OWN)?,
                // A hierarchy that nothing limits in is not used.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            joined = true;
        }
        match joined {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::NotFound, "it is gone")),
        }
    }
}
