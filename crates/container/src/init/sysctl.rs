//! Kernel parameters (runtime spec, `linux.sysctl`).

use std::fs::OpenOptions;
use std::io::Write;

use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use super::namespaces::has_own;
use crate::error::ContainerError;

/// Writes the parameters of `spec`. To be called in the container's namespaces
/// and with the host's `/proc`.
///
/// # Errors
/// A parameter that is not of the container's own namespaces, or that the
/// kernel does not take, named.
pub fn write(spec: &Spec) -> Result<(), ContainerError> {
    let Some(parameters) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref())
    else {
        return Ok(());
    };
    for (name, value) in parameters {
        let refused =
            |why: String| ContainerError::Unsupported(format!("linux.sysctl: {name}: {why}"));
        let path = name.replace('.', "/");
        let Some(owner) = owner(&path) else {
            return Err(refused(
                "belongs to no namespace, so to the whole node".into(),
            ));
        };
        if !has_own(spec, owner) {
            return Err(refused(format!(
                "the container has no {owner} namespace of its own"
            )));
        }
        OpenOptions::new()
            .write(true)
            .open(format!("/proc/sys/{path}"))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|e| refused(format!("write {value:?}: {e}")))?;
    }
    Ok(())
}

/// The kind of namespace that a parameter belongs to.
fn owner(path: &str) -> Option<Type> {
    const IPC: [&str; 7] = [
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
    ];
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return None;
    }
    if IPC.contains(&path) || path == "kernel/shm_rmid_forced" || path.starts_with("fs/mqueue/") {
        Some(Type::Ipc)
    } else if path.starts_with("net/") {
        Some(Type::Network)
    } else if path == "kernel/domainname" || path == "kernel/hostname" {
        Some(Type::Uts)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_owners() {
        assert_eq!(owner("net/core/somaxconn"), Some(Type::Network));
        assert_eq!(owner("kernel/shmmax"), Some(Type::Ipc));
        assert_eq!(owner("fs/mqueue/msg_max"), Some(Type::Ipc));
        assert_eq!(owner("kernel/hostname"), Some(Type::Uts));
        for nobodys in [
            "vm/swappiness",
            "net/../vm/swappiness",
            "net//x",
            "kernel/panic",
        ] {
            assert_eq!(owner(nobodys), None, "{nobodys}");
        }
    }

    #[test]
    fn a_parameter_of_the_node_is_refused() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","linux":{"sysctl":{"vm.swappiness":"1"},
                "namespaces":[{"type":"network"}]}}"#,
        )
        .expect("spec");
        let error = write(&spec).expect_err("refused").to_string();
        assert!(error.contains("vm.swappiness"), "{error}");
    }
}
