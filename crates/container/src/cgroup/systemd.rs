//! What systemd has to do for a container's cgroup: to know its limits and to
//! end its scope. It makes the scope for libcontainer, or for a `Scope`.
//!
//! It is asked by `systemctl`: libcgroups never closes its connections, and a
//! daemon would collect them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Cgroup;
use crate::error::ContainerError;

/// Where systemd keeps the units that programs have asked it for
/// (systemd.unit(5), "Unit File Load Path").
const TRANSIENT_UNITS: &str = "/run/systemd/transient";
/// How long systemd may take to hear that a scope is empty before it is told.
const HEARING: Duration = Duration::from_millis(200);
/// How long it may take to end a scope.
const SYSTEMD_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether it has.
const INTERVAL: Duration = Duration::from_millis(5);

impl Cgroup {
    /// Tells systemd the limits that the cgroup's files have now: each time it
    /// reads its own files again, it writes to the cgroup what it knows.
    ///
    /// # Errors
    /// When systemd refuses.
    pub(super) fn tell_systemd(&self) -> Result<(), ContainerError> {
        if !self.systemd {
            return Ok(());
        }
        let path = self.plain_path();
        let said = Command::new("systemctl")
            .args(["set-property", "--runtime"])
            .arg(path.file_name().unwrap_or_default())
            .args(properties(|controller, file| {
                self.read(controller, file).ok()
            }))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| ContainerError::Limit(format!("systemctl set-property: {error}")))?;
        if said.status.success() {
            return Ok(());
        }
        Err(ContainerError::Limit(format!(
            "systemctl set-property: {}",
            String::from_utf8_lossy(&said.stderr).trim()
        )))
    }

    /// Has systemd end the scope and remove its cgroup. It does so by itself
    /// when it hears that the last process is gone, but a reload of its files
    /// can keep it from hearing. Nobody else may remove the cgroup before: a
    /// scope without one goes on, and so would keep its name from being used.
    ///
    /// # Errors
    /// When the cgroup's processes cannot be killed.
    pub(super) fn end_scope(&self) -> Result<(), ContainerError> {
        let path = self.plain_path();
        let unit = path.file_name().unwrap_or_default();
        // This file goes with the unit, after its cgroup.
        let file = Path::new(TRANSIENT_UNITS).join(unit);
        let start = Instant::now();
        // A scope that has failed stays until somebody takes note of it.
        let mut requests = [(HEARING, "stop"), (HEARING * 5, "reset-failed")]
            .into_iter()
            .peekable();
        while file.exists() {
            self.kill_all(libc::SIGKILL)?;
            if let Some((_, verb)) = requests.next_if(|(after, _)| start.elapsed() > *after)
                && let Err(error) = systemctl(verb, unit)
            {
                log::warn!("container {}: systemctl {verb}: {error}", self.id);
            }
            if start.elapsed() > SYSTEMD_PATIENCE {
                log::warn!("container {}: systemd keeps {}", self.id, unit.display());
                break;
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }
}

/// The properties (systemd.resource-control(5)) for what is in a cgroup's files.
fn properties(read: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
    let mut properties = Vec::new();
    for (controller, file, property) in [
        ("memory", "memory.max", "MemoryMax"),
        ("memory", "memory.low", "MemoryLow"),
        ("memory", "memory.high", "MemoryHigh"),
        ("memory", "memory.swap.max", "MemorySwapMax"),
        ("pids", "pids.max", "TasksMax"),
        ("cpu", "cpu.weight", "CPUWeight"),
    ] {
        if let Some(value) = read(controller, file) {
            let value = match value.trim() {
                "max" => "infinity",
                number => number,
            };
            properties.push(format!("{property}={value}"));
        }
    }
    let limit = read("cpu", "cpu.max").unwrap_or_default();
    if let Some((quota, period)) = limit.trim().split_once(' ')
        && let Ok(period) = period.parse::<u64>()
        && period > 0
    {
        // In hundredths of a per cent, of which systemd keeps as many.
        let quota = match quota.parse::<u64>() {
            Ok(quota) => {
                let parts = u128::from(quota) * 10_000 / u128::from(period);
                format!("{}.{:02}%", parts / 100, parts % 100)
            }
            Err(_) => String::new(),
        };
        properties.push(format!("CPUQuota={quota}"));
        properties.push(format!("CPUQuotaPeriodSec={period}us"));
    }
    properties
}

/// Starts `systemctl verb unit`; it ends when it likes.
fn systemctl(verb: &str, unit: &OsStr) -> std::io::Result<()> {
    Command::new("systemctl")
        .arg(verb)
        .arg(unit)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_say_what_the_files_have() {
        let read = |controller: &str, file: &str| {
            let value = match (controller, file) {
                ("memory", "memory.max") => "67108864\n",
                ("memory", "memory.swap.max") | ("pids", "pids.max") => "max\n",
                ("cpu", "cpu.weight") => "59\n",
                ("cpu", "cpu.max") => "12500 50000\n",
                _ => return None,
            };
            Some(value.to_owned())
        };
        assert_eq!(
            properties(read),
            [
                "MemoryMax=67108864",
                "MemorySwapMax=infinity",
                "TasksMax=infinity",
                "CPUWeight=59",
                "CPUQuota=25.00%",
                "CPUQuotaPeriodSec=50000us",
            ]
        );
        let unlimited =
            |_: &str, file: &str| (file == "cpu.max").then(|| "max 100000\n".to_owned());
        assert_eq!(
            properties(unlimited),
            ["CPUQuota=", "CPUQuotaPeriodSec=100000us"]
        );
    }
}
