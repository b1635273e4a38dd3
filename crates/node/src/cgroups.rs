//! The cgroups of the node.

use std::fs;
use std::path::Path;

/// The controllers that limits and statistics of containers need.
const NEEDED: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];

/// How cgroups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// 1 or 2; `None` if none are mounted where containerd looks.
    pub version: Option<u8>,
    /// The controllers that there are.
    pub controllers: Vec<String>,
    /// Whether systemd runs the machine.
    pub systemd: bool,
}

impl Cgroups {
    /// Looks at the running system.
    pub fn find() -> Self {
        Self::at(
            Path::new("/sys/fs/cgroup"),
            Path::new("/run/systemd/system").exists(),
        )
    }

    fn at(root: &Path, systemd: bool) -> Self {
        if let Ok(listed) = fs::read_to_string(root.join("cgroup.controllers")) {
            return Self {
                version: Some(2),
                controllers: listed.split_whitespace().map(str::to_owned).collect(),
                systemd,
            };
        }
        let mut controllers: Vec<String> = fs::read_dir(root)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| root.join(name).join("cgroup.procs").exists())
            // Of `cpu,cpuacct` and the links to it, the links.
            .flat_map(|name| name.split(',').map(str::to_owned).collect::<Vec<_>>())
            .collect();
        controllers.sort();
        controllers.dedup();
        Self {
            version: (!controllers.is_empty()).then_some(1),
            controllers,
            systemd,
        }
    }

    /// Which of the controllers that containers need are not there.
    pub fn missing(&self) -> Vec<&'static str> {
        NEEDED
            .into_iter()
            .chain((self.version == Some(1)).then_some("freezer"))
            .filter(|name| !self.controllers.iter().any(|has| has == name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_version_is_told_by_its_files() {
        let dir = tempfile::tempdir().expect("dir");
        let none = Cgroups::at(dir.path(), false);
        assert_eq!(none.version, None);
        for name in ["memory", "pids", "cpu,cpuacct", "freezer"] {
            fs::create_dir(dir.path().join(name)).expect("dir");
            fs::write(dir.path().join(name).join("cgroup.procs"), "").expect("file");
        }
        let first = Cgroups::at(dir.path(), false);
        assert_eq!(first.version, Some(1));
        assert_eq!(first.missing(), ["cpuset"]);
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").expect("file");
        let second = Cgroups::at(dir.path(), true);
        assert_eq!((second.version, second.systemd), (Some(2), true));
        assert_eq!(second.missing(), ["cpuset"]);
    }
}
