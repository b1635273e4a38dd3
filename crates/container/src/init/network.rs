//! Whose network a container has.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

/// Whether the network is the host's: no namespace is named, or the one that
/// this process is in, before it enters any. CRI names the namespace of the
/// pod's first process also where that is in the host's.
pub fn is_hosts(spec: &Spec) -> bool {
    let network = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten()
        .find(|namespace| namespace.typ() == LinuxNamespaceType::Network);
    let Some(network) = network else {
        return true;
    };
    let Some(path) = network.path() else {
        return false;
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // One that cannot be looked at fails the creation soon; until then, no
    // more is granted for it.
    identity(path).is_none_or(|its| identity(Path::new("/proc/self/ns/net")) == Some(its))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(namespaces: &str) -> bool {
        let spec: Spec = serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":[{namespaces}]}}}}"#
        ))
        .expect("spec");
        is_hosts(&spec)
    }

    #[test]
    fn a_path_may_lead_to_the_hosts_network() {
        assert!(is(r#"{"type":"pid"}"#));
        assert!(!is(r#"{"type":"network"}"#));
        assert!(is(r#"{"type":"network","path":"/proc/self/ns/net"}"#));
        // Another one, of whatever kind.
        assert!(!is(r#"{"type":"network","path":"/proc/self/ns/uts"}"#));
        assert!(is(r#"{"type":"network","path":"/no/such/file"}"#));
    }
}
