//! What every private containerd's configuration has in common.

use std::path::Path;

/// What costs start-up time or reaches beyond the machine and is never used.
const UNUSED: [&str; 6] = [
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.aufs",
];

/// Kubernetes' part. NRI would listen at a path that every containerd shares.
const PODS: [&str; 5] = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.nri.v1.nri",
];

/// For tasks only: all versions read it.
pub fn without_pods(dir: &Path) -> String {
    let disabled: Vec<_> = PODS.iter().chain(&UNUSED).copied().collect();
    text(2, dir, &disabled)
}

/// For pods, without anything about them but that NRI is off; more tables may
/// follow. `schema` is the version of the configuration's format.
pub fn with_pods(schema: u8, dir: &Path) -> String {
    let base = text(schema, dir, &UNUSED);
    format!("{base}\n[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n")
}

fn text(schema: u8, dir: &Path, disabled: &[&str]) -> String {
    let dir = dir.display();
    format!(
        r#"version = {schema}
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = {disabled:?}

[grpc]
address = "{dir}/c.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
"#
    )
}
