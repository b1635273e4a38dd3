//! Stats: what a container uses, as containerd's metrics of its node's cgroup
//! version.
//!
//! Source: containerd/cgroups, `cgroup1/stats/metrics.proto` and
//! `cgroup2/stats/metrics.proto`. What cannot be read is left out: nodes differ
//! in what their kernels count.

mod v1;
mod v2;

use std::str::FromStr;

use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use wisp_container::cgroup::{Cgroup, Version};

use super::error::TaskError;
use super::task::Task;

impl Task {
    /// What the container uses.
    ///
    /// # Errors
    /// When it has no cgroup (any more).
    pub fn metrics(&self) -> Result<Any, TaskError> {
        let cgroup = &self.cgroup;
        if !["memory", "cpuacct", "pids"]
            .iter()
            .any(|controller| cgroup.dir(controller).is_some_and(|dir| dir.exists()))
        {
            return Err(TaskError::NotFound(format!(
                "cgroup of {}",
                self.process().name()
            )));
        }
        let encoded = match Version::of_node() {
            Version::V1 => v1::metrics(cgroup).write_to_bytes(),
            Version::V2 => v2::metrics(cgroup).write_to_bytes(),
        };
        let value = encoded.map_err(|error| TaskError::Invalid(format!("metrics: {error}")))?;
        // Spelled out, as events' names are: see there.
        let type_url = match Version::of_node() {
            Version::V1 => "io.containerd.cgroups.v1.Metrics",
            Version::V2 => "io.containerd.cgroups.v2.Metrics",
        };
        Ok(Any {
            type_url: type_url.to_owned(),
            value,
            ..Any::default()
        })
    }
}

/// The value in a file of its own; `max` is the largest there is.
fn single(cgroup: &Cgroup, controller: &str, file: &str) -> Option<u64> {
    number(cgroup.read(controller, file).ok()?.trim())
}

fn number(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(u64::MAX);
    }
    text.parse().ok()
}

/// A file of lines `key value`.
struct Flat(String);

impl Flat {
    fn of(cgroup: &Cgroup, controller: &str, file: &str) -> Option<Self> {
        cgroup.read(controller, file).ok().map(Self)
    }

    /// The value of `key`, 0 if there is none.
    fn get(&self, key: &str) -> u64 {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .and_then(|value| number(value.trim()))
            .unwrap_or_default()
    }
}

/// A device's `major:minor`.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((u64::from_str(major).ok()?, u64::from_str(minor).ok()?))
}

/// The sizes of huge pages on this node, as cgroups name them: `2MB`.
fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages");
    let mut sizes: Vec<u64> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(huge_page_name).collect()
}

fn huge_page_name(kib: u64) -> String {
    match kib {
        1_048_576.. => format!("{}GB", kib >> 20),
        1024.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_files_are_read_by_whole_keys() {
        let flat = Flat("cache 1\ntotal_cache 2\ncache_x 3\nlimit max\nbad x\n".into());
        assert_eq!(flat.get("cache"), 1);
        assert_eq!(flat.get("total_cache"), 2);
        assert_eq!(flat.get("limit"), u64::MAX);
        assert_eq!(flat.get("bad"), 0);
        assert_eq!(flat.get("none"), 0);
    }

    #[test]
    fn huge_pages_have_the_kernels_names() {
        assert_eq!(huge_page_name(64), "64KB");
        assert_eq!(huge_page_name(2048), "2MB");
        assert_eq!(huge_page_name(1_048_576), "1GB");
    }

    #[test]
    fn devices_are_two_numbers() {
        assert_eq!(device("8:16"), Some((8, 16)));
        assert_eq!(device("Total"), None);
    }
}
