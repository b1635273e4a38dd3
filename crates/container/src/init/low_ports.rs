//! Ports below 1024, the one use that a guest's process has for a capability.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, Process};
use wisp_capability::Grant;
use wisp_engine::World;

use super::confine::no_capabilities;

/// The first port that everybody may listen on, unless a sysctl of the network
/// namespace says otherwise (ip(7), `ip_unprivileged_port_start`).
const UNPRIVILEGED: u16 = 1024;

/// The capability to listen on a low port, for a guest that is granted one, if
/// the container may have it: what a native program gets as root and cannot get
/// as another user, because CRI knows no ambient capabilities. `None` where
/// there is nothing to keep.
pub fn capabilities(process: &Process, grant: &Grant, world: World) -> Option<LinuxCapabilities> {
    let wanted = grant.listen.covers_ports_below(UNPRIVILEGED)
        || (matches!(world, World::Http(_)) && grant.http_listen.port() < UNPRIVILEGED);
    let bounding = process.capabilities().as_ref()?.bounding().as_ref()?;
    if !wanted || !bounding.contains(&Capability::NetBindService) {
        return None;
    }
    let only = Capabilities::from([Capability::NetBindService]);
    let mut kept = no_capabilities();
    kept.set_bounding(Some(only.clone()));
    kept.set_permitted(Some(only.clone()));
    kept.set_effective(Some(only));
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use wisp_capability::{Policy, Request};
    use wisp_engine::Wasi;

    fn kept(bounding: &str, annotation: (&str, &str), world: World) -> bool {
        let process: Process = serde_json::from_str(&format!(
            r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"capabilities":{{"bounding":[{bounding}]}}}}"#
        ))
        .expect("process");
        let annotations = BTreeMap::from([(annotation.0.to_owned(), annotation.1.to_owned())]);
        let grant = wisp_capability::grant(&Request {
            args: &["app.wasm".to_owned()],
            env: &[],
            cwd: "/",
            annotations: &annotations,
            mounts: &[],
            root_readonly: false,
            host_network: false,
            memory_limit: None,
            namespace: "",
            policy: &Policy::default(),
        })
        .expect("grant");
        let kept = capabilities(&process, &grant, world);
        if let Some(kept) = &kept {
            for set in [kept.bounding(), kept.permitted(), kept.effective()] {
                let set = set.as_ref().expect("set");
                assert_eq!(set.len(), 1);
            }
            for set in [kept.inheritable(), kept.ambient()] {
                assert_eq!(set.as_ref().map(|set| set.len()), Some(0));
            }
        }
        kept.is_some()
    }

    #[test]
    fn it_is_kept_only_by_who_may_have_it_and_needs_it() {
        const HAS: &str = r#""CAP_NET_BIND_SERVICE","CAP_SYS_ADMIN""#;
        let (http, command) = (World::Http(Wasi::P2), World::Command(Wasi::P2));
        let low = ("io.wisp.http.listen", "0.0.0.0:80");
        assert!(kept(HAS, low, http));
        assert!(!kept(HAS, low, command));
        assert!(!kept(r#""CAP_SYS_ADMIN""#, low, http));
        assert!(!kept(HAS, ("io.wisp.http.listen", "0.0.0.0:8080"), http));
        assert!(kept(HAS, ("io.wisp.net.listen", "tcp://*:53"), command));
        assert!(!kept(HAS, ("io.wisp.net.listen", "tcp://*:5353"), command));
    }
}
