//! What kubelet is told on this node, as far as it concerns containers.

use std::fs;
use std::path::{Path, PathBuf};

/// Where kubeadm puts its configuration.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// kubelet's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubelet {
    /// The file it is in.
    pub path: PathBuf,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: String,
}

impl Kubelet {
    /// Reads the configuration at `path`, if there is one.
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            cgroup_driver: driver(&text),
        })
    }
}

/// The value of a field at the top of a YAML document; kubelet's own default if
/// it is not there.
fn driver(text: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix("cgroupDriver:"))
        .map(|value| {
            let value = value.split(" #").next().unwrap_or_default();
            value.trim().trim_matches(['"', '\'']).to_owned()
        })
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| "cgroupfs".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_read_and_has_a_default() {
        assert_eq!(driver("a: b\ncgroupDriver: systemd\nc: d\n"), "systemd");
        assert_eq!(driver("cgroupDriver: \"systemd\" # why\n"), "systemd");
        assert_eq!(driver("x:\n  cgroupDriver: systemd\n"), "cgroupfs");
        assert_eq!(driver(""), "cgroupfs");
    }
}
