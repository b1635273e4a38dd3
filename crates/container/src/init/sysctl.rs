//! Kernel parameters (runtime spec, `linux.sysctl`).

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;

use oci_spec::runtime::{LinuxNamespaceType as Type, Spec};

use super::namespaces::is_hosts;
use crate::error::ContainerError;

/// Refuses parameters that would be the node's. To be called before any
/// namespace is entered.
///
/// # Errors
/// A parameter that is not of the container's own namespaces, named.
pub fn check(spec: &Spec) -> Result<(), ContainerError> {
    for name in parameters(spec).into_iter().flat_map(HashMap::keys) {
        let Some(owner) = owner(&path(name)) else {
            return Err(refused(
                name,
                "belongs to no namespace, so to the whole node",
            ));
        };
        if is_hosts(spec, owner) {
            let why = format!("the container has no {owner} namespace of its own");
            return Err(refused(name, &why));
        }
    }
    Ok(())
}

/// Writes the parameters of `spec`, which was [checked](check). To be called in
/// the container's namespaces and with the host's `/proc`.
///
/// # Errors
/// A parameter that the kernel does not take, named.
pub fn write(spec: &Spec) -> Result<(), ContainerError> {
    for (name, value) in parameters(spec).into_iter().flatten() {
        OpenOptions::new()
            .write(true)
            .open(format!("/proc/sys/{}", path(name)))
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|e| refused(name, &format!("write {value:?}: {e}")))?;
    }
    Ok(())
}

fn parameters(spec: &Spec) -> Option<&HashMap<String, String>> {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref())
}

fn path(name: &str) -> String {
    name.replace('.', "/")
}

fn refused(name: &str, why: &str) -> ContainerError {
    ContainerError::Unsupported(format!("linux.sysctl: {name}: {why}"))
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
        let refused = |sysctl: &str, namespace: &str| {
            let spec: Spec = serde_json::from_str(&format!(
                r#"{{"ociVersion":"1.0.2","linux":{{"sysctl":{{"{sysctl}":"1"}},
                    "namespaces":[{namespace}]}}}}"#
            ))
            .expect("spec");
            check(&spec).err().map(|error| error.to_string())
        };
        let own = r#"{"type":"network"}"#;
        let hosts = r#"{"type":"network","path":"/proc/self/ns/net"}"#;
        assert_eq!(refused("net.core.somaxconn", own), None);
        for (sysctl, namespace) in [
            ("vm.swappiness", own),
            ("kernel.shmmax", own),
            ("net.core.somaxconn", hosts),
        ] {
            let error = refused(sysctl, namespace).expect("refused");
            assert!(error.contains(sysctl), "{error}");
        }
    }
}
