//! What is left of pods.

use super::node::{NAMESPACE, Node};
use super::test::Known;
use crate::{leaks, processes};

/// Everything there is of the pods and containers with these `ids`, whose
/// cgroups are below `name`.
pub fn of(node: &Node, name: &str, ids: &[String], pods: &[Known]) -> Vec<String> {
    let containerd = node.as_ref();
    let mut names: Vec<&str> = ids.iter().map(String::as_str).collect();
    names.push(name);
    let mut found: Vec<String> = processes::concerning_any(&names)
        .iter()
        .map(|process| {
            let state = if process.is_zombie() { " (zombie)" } else { "" };
            format!("process {}{state}: {}", process.pid, process.line)
        })
        .collect();
    found.extend(
        leaks::mounts()
            .into_iter()
            .filter(|mount| names.iter().any(|name| mount.contains(name)))
            .map(|mount| format!("mount {mount}")),
    );
    found.extend(
        leaks::cgroups(name)
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    for base in [containerd.state(), containerd.root()] {
        // Each plugin has its own directory, and in it one for each kind of
        // object or for each namespace.
        for place in leaks::children(&base)
            .iter()
            .flat_map(|plugin| leaks::children(plugin))
        {
            for id in ids {
                if place.join(id).exists() {
                    found.push(format!("directory {}", place.join(id).display()));
                }
            }
        }
    }
    for id in ids {
        let socket = leaks::socket(containerd, NAMESPACE, id);
        if socket.exists() {
            found.push(format!("socket {} of {id}", socket.display()));
        }
    }
    for pod in pods {
        if let Some(path) = pod.namespace.as_ref().filter(|path| path.exists()) {
            found.push(format!("network namespace {}", path.display()));
        }
        if let Some(address) = pod.address.as_ref()
            && node.network().has_lease(address)
        {
            found.push(format!("the lease of address {address}"));
        }
    }
    found
}
