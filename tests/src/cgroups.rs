//! The cgroups of this machine, of either version.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where they are mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this machine has version 2 alone.
pub fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// Whether a runtime can have systemd make cgroups here.
pub fn systemd() -> bool {
    unified() && Path::new("/run/systemd/system").exists()
}

/// The directory of the cgroup that process `pid` is in, as `controller` sees it.
///
/// # Errors
/// When there is no such process, or no such controller.
pub fn of(pid: u32, controller: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .with_context(|| format!("the cgroups of process {pid}"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if unified() && controllers.is_empty() {
            return Ok(Path::new(MOUNT).join(path));
        }
        if !unified() && controllers.split(',').any(|name| name == controller) {
            return Ok(Path::new(MOUNT).join(controller).join(path));
        }
    }
    anyhow::bail!("process {pid} is in no cgroup of {controller}: {text}")
}
