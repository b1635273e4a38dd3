//! Which devices a container may use.
//!
//! Version 1 of cgroups has files for it. Version 2 asks
//! a BPF program of the cgroup at each open and mknod. Without one, whoever has
//! CAP_MKNOD, which containerd gives by default, makes a file of the node's disk
//! and reads it.

mod bpf;
mod program;
mod rules;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use libcgroups::common::{CgroupSetup, DEFAULT_CGROUP_ROOT, get_cgroup_setup};
use oci_spec::runtime::{LinuxResources, Spec};

use self::rules::Rule;
use crate::error::ContainerError;

/// Confines the container whose first process is `pid` to the devices that
/// `linux.resources.devices` of `spec` allows and those that every container
/// has (OCI runtime spec, "Default Devices"). Does nothing on cgroup v1.
///
/// # Errors
/// When the cgroup cannot be found or the kernel refuses the program; then the
/// container must not run.
pub fn confine(spec: &Spec, pid: i32) -> Result<(), ContainerError> {
    if !matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified)) {
        return Ok(());
    }
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let rules = resources.map_or(Ok(Vec::new()), rules_of)?;
    let Some(program) = program::of(&rules) else {
        return Ok(());
    };
    let directory = cgroup_of(pid)?;
    bpf::attach(&program, &directory).map_err(|source| ContainerError::Io {
        what: "attach the device program to",
        path: directory,
        source,
    })
}

/// What to write to which file of a cgroup of version 1, in this order, so that
/// its processes may use the devices that `resources` allows and those that
/// every container has.
///
/// # Errors
/// A rule that means nothing, named.
pub fn lines(resources: &LinuxResources) -> Result<Vec<(&'static str, String)>, ContainerError> {
    let rules = rules_of(resources)?;
    let lines = rules.iter().map(|rule| {
        let file = match rule.allow {
            true => "devices.allow",
            false => "devices.deny",
        };
        (file, rule.line())
    });
    Ok(lines.collect())
}

fn rules_of(resources: &LinuxResources) -> Result<Vec<Rule>, ContainerError> {
    rules::of(resources.devices().as_deref().unwrap_or_default())
        .map_err(ContainerError::Unsupported)
}

/// The directory of the cgroup (v2) that process `pid` is in.
fn cgroup_of(pid: i32) -> Result<PathBuf, ContainerError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(|source| ContainerError::Io {
        what: "read",
        path: path.clone(),
        source,
    })?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .map(|relative| Path::new(DEFAULT_CGROUP_ROOT).join(relative))
        .ok_or_else(|| ContainerError::Io {
            what: "find the cgroup in",
            path,
            source: io::Error::from(io::ErrorKind::InvalidData),
        })
}
