//! The `-info` role: containerd 2.2 and later ask what the runtime can do
//! before they create the first container.

use std::io::{Read, Write};

use anyhow::Context;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::{Message, MessageField};
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::RUNTIME;

/// The name under which containerd registers the OCI features document.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints a `RuntimeInfo`.
///
/// # Errors
/// When the answer cannot be written.
pub fn run() -> anyhow::Result<()> {
    // The options that may come on stdin change nothing here, but a writer
    // whose pipe closes early would see an error.
    std::io::copy(&mut std::io::stdin().take(10 << 20), &mut std::io::sink())
        .context("read options")?;
    let info = RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        features: MessageField::some(Any {
            type_url: FEATURES.to_owned(),
            value: serde_json::to_vec(&features())?,
            ..Any::default()
        }),
        ..RuntimeInfo::default()
    };
    std::io::stdout()
        .write_all(&info.write_to_bytes()?)
        .context("answer containerd")
}

/// What wisp implements of the OCI runtime spec, as its features document
/// (runtime-spec, features.md). Only what is true for native and Wasm
/// containers alike.
fn features() -> serde_json::Value {
    serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer",
                  "poststart", "poststop"],
        "mountOptions": ["async", "bind", "defaults", "dev", "diratime", "dirsync", "exec",
                         "noatime", "nodev", "nodiratime", "noexec", "norelatime", "nosuid",
                         "private", "rbind", "relatime", "remount", "ro", "rprivate", "rshared",
                         "rslave", "rw", "shared", "slave", "strictatime", "suid", "sync"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false,
                       "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL",
                            "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                            "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE",
                              "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"]
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_document_is_one_by_the_specs_own_type() {
        let parsed: Result<oci_spec::runtime::Features, _> = serde_json::from_value(features());
        assert!(parsed.is_ok(), "{parsed:?}");
    }
}
