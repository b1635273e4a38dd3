//! Supplementary groups, set before the process enters the container.
//!
//! libcontainer looks into `/proc` to set them, which a jail does not have.
//! They are inherited, so init takes them itself: exactly those of the spec,
//! never those of the daemon.

use nix::unistd::{Gid, setgroups};
use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::error::ContainerError;

/// Takes the groups of `spec`'s user.
///
/// # Errors
/// When a group has no counterpart on the host (user namespaces), or the
/// kernel refuses.
pub fn take(spec: &Spec) -> Result<(), ContainerError> {
    let wanted = spec
        .process()
        .as_ref()
        .and_then(|process| process.user().additional_gids().clone())
        .unwrap_or_default();
    let mappings = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.gid_mappings().clone())
        .unwrap_or_default();
    let groups = wanted
        .into_iter()
        .map(|group| {
            on_host(group, &mappings).map(Gid::from_raw).ok_or_else(|| {
                ContainerError::Unsupported(format!(
                    "process.user.additionalGids: {group} is in none of linux.gidMappings"
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    setgroups(&groups)
        .map_err(|errno| ContainerError::Init(format!("set supplementary groups: {errno}")))
}

/// The host's number of a container's group; the same without mappings.
fn on_host(group: u32, mappings: &[LinuxIdMapping]) -> Option<u32> {
    if mappings.is_empty() {
        return Some(group);
    }
    mappings.iter().find_map(|mapping| {
        let offset = group.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id().checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_host() {
        assert_eq!(on_host(7, &[]), Some(7));
        let mappings: Vec<LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID":0,"hostID":1000,"size":10},{"containerID":100,"hostID":5000,"size":1}]"#,
        )
        .expect("mappings");
        assert_eq!(on_host(7, &mappings), Some(1007));
        assert_eq!(on_host(100, &mappings), Some(5000));
        assert_eq!(on_host(10, &mappings), None);
        assert_eq!(on_host(101, &mappings), None);
    }
}
