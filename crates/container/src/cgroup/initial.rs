//! The limits of a cgroup that has just been made.

use std::io;

use libcgroups::common::{CgroupManager, ControllerOpt};
use oci_spec::runtime::LinuxResources;

use super::{Cgroup, Version};
use crate::devices;
use crate::error::{ContainerError, chain};

impl Cgroup {
    /// Sets all limits of `resources` (runtime spec, "Control groups").
    ///
    /// What nearly every container has is written to its files straight away;
    /// the rest is libcgroups' business, which looks for each of its files by
    /// all the mounts of the machine.
    ///
    /// # Errors
    /// The limit that was refused.
    pub(super) fn limit(&self, resources: &LinuxResources) -> Result<(), ContainerError> {
        if self.systemd || !is_usual(resources) {
            return self.limit_all(resources);
        }
        self.update(resources)?;
        for page in resources.hugepage_limits().iter().flatten() {
            let file = match Version::of_node() {
                Version::V1 => format!("hugetlb.{}.limit_in_bytes", page.page_size()),
                Version::V2 => format!("hugetlb.{}.max", page.page_size()),
            };
            match self.write("hugetlb", &file, &page.limit().to_string()) {
                // kubelet limits all sizes to nothing, whether there are any.
                Err(error) if error.kind() == io::ErrorKind::NotFound && page.limit() == 0 => {}
                result => result.map_err(refused(&file))?,
            }
        }
        // Version 2 has no files for devices. A guest's mounts have none that
        // could be opened, and its process could not make any.
        if Version::of_node() == Version::V1 {
            for (file, line) in devices::lines(resources)? {
                self.write("devices", file, &line).map_err(refused(file))?;
            }
        }
        Ok(())
    }

    fn limit_all(&self, resources: &LinuxResources) -> Result<(), ContainerError> {
        self.manager()?
            .apply(&ControllerOpt {
                resources,
                freezer_state: None,
                oom_score_adj: None,
                disable_oom_killer: false,
            })
            .map_err(|error| ContainerError::Limit(chain(&error)))
    }
}

/// Whether there is nothing in `resources` but what is known here.
fn is_usual(resources: &LinuxResources) -> bool {
    let memory = resources.memory().as_ref().is_none_or(|memory| {
        memory.swappiness().is_none()
            && memory.disable_oom_killer() != Some(true)
            && memory.kernel().is_none_or(|limit| limit == 0)
            && memory.kernel_tcp().is_none_or(|limit| limit == 0)
    });
    memory
        && resources.block_io().is_none()
        && resources.network().is_none()
        && resources.rdma().as_ref().is_none_or(|rdma| rdma.is_empty())
}

fn refused(file: &str) -> impl FnOnce(io::Error) -> ContainerError {
    move |error| ContainerError::Limit(format!("{file}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).expect("resources")
    }

    #[test]
    fn the_unusual_is_left_to_the_library() {
        for usual in [
            "{}",
            r#"{"cpu":{"shares":2},"memory":{"limit":1000000},"pids":{"limit":5},
                "hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#,
        ] {
            assert!(is_usual(&resources(usual)), "{usual}");
        }
        for unusual in [
            r#"{"memory":{"swappiness":10}}"#,
            r#"{"memory":{"disableOOMKiller":true}}"#,
            r#"{"blockIO":{"weight":10}}"#,
            r#"{"network":{"classID":1}}"#,
        ] {
            assert!(!is_usual(&resources(unusual)), "{unusual}");
        }
    }
}
