//! A containerd with Kubernetes' plugin and the runtimes `wisp` and `runc`.

use super::network::Network;
use crate::images::Images;
use crate::{Containerd, Version, oci, paths};
use crate::{command, configuration};
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// containerd's namespace of Kubernetes' containers.
pub const NAMESPACE: &str = "k8s.io";
/// The pod's first container, made from `tests/pause.c`.
const PAUSE: &str = "localhost/wisp/pause:test";

static COUNT: AtomicU8 = AtomicU8::new(0);

/// Whether an image has been imported, or why that failed.
type Imported = Arc<OnceLock<Result<(), String>>>;

/// The containerd and its pods' network.
#[derive(Debug)]
pub struct Node {
    containerd: Containerd,
    network: Network,
    imported: Mutex<HashMap<String, Imported>>,
}

impl Node {
    /// Starts it, and imports the image of pause.
    ///
    /// # Errors
    /// When something is missing or does not come up.
    pub fn start(version: Version) -> Result<Self> {
        Self::start_with(version, true)
    }

    /// The same without the runtime `wisp`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn without_wisp(version: Version) -> Result<Self> {
        Self::start_with(version, false)
    }

    fn start_with(version: Version, wisp: bool) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = OnceLock::new();
        let containerd = Containerd::start_with(version, |dir| {
            let made = Network::new(dir, number)?;
            let text = configure(version, dir, &made, wisp);
            let _ = network.set(made);
            Ok(text)
        })?;
        Self::of(containerd, network)
    }

    /// The machine's own containerd, with systemd's cgroups, a runtime `runc`, and
    /// all else as its package has it. `more` is put before its configuration.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn on_systemd(version: Version, more: &str) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = OnceLock::new();
        let containerd = Containerd::start_unit(version, |dir, text| {
            let made = Network::new(dir, number)?;
            let text = edited(text, &made)?;
            let _ = network.set(made);
            Ok(format!("{more}{text}"))
        })?;
        Self::of(containerd, network)
    }

    fn of(containerd: Containerd, network: OnceLock<Network>) -> Result<Self> {
        let node = Self {
            containerd,
            network: network.into_inner().context("no network")?,
            imported: Mutex::default(),
        };
        let tar = node.containerd.dir().join("pause.tar");
        pause(&tar)?;
        node.import(PAUSE, || Ok(tar))?;
        Ok(node)
    }

    /// Stops it and removes all that is left of it. May be called again.
    pub fn stop(&self) {
        self.containerd.stop();
        self.network.remove();
    }

    /// Its pods' network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Imports the image called `reference` the first time, from the file that
    /// `tar` makes.
    ///
    /// # Errors
    /// What `tar` or `ctr` said.
    pub fn import(&self, reference: &str, tar: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
        let cell = {
            let mut all = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(reference.to_owned()).or_default())
        };
        let import = || -> Result<()> {
            let mut ctr = self.containerd.ctr(NAMESPACE);
            ctr.args(["image", "import"]).arg(tar()?);
            let ended = command::run(&mut ctr, Vec::new(), Duration::from_secs(120))?;
            ensure!(ended.code == 0, "import {reference}: {}", ended.err());
            Ok(())
        };
        cell.get_or_init(|| import().map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)
    }

    /// [`Self::import`] of an image that `make` makes once for all containerds.
    ///
    /// # Errors
    /// What `make` or `ctr` said.
    pub fn import_made(
        &self,
        images: &Images,
        reference: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.import(reference, || images.get(reference, make))
    }
}

impl AsRef<Containerd> for Node {
    fn as_ref(&self) -> &Containerd {
        &self.containerd
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the image of pause, which is compiled unless `WISP_TESTS_PAUSE` names it.
fn pause(output: &Path) -> Result<()> {
    let program = match std::env::var_os("WISP_TESTS_PAUSE") {
        Some(program) => program.into(),
        None => {
            let program = output.with_extension("program");
            let mut cc = Command::new("cc");
            cc.args(["-static", "-Os", "-Wall", "-Werror", "-s", "-o"])
                .arg(&program)
                .arg(paths::repository().join("tests/pause.c"));
            let ended = command::run(&mut cc, Vec::new(), Duration::from_secs(60))?;
            ensure!(ended.code == 0, "{cc:?}: {}", ended.err());
            program
        }
    };
    let program = std::fs::read(program)?;
    oci::Image::new(&["/pause"])
        .files(&[oci::Entry::File("pause", 0o755, &program)])?
        .write(PAUSE, false, output)
}

/// What an owner makes of the configuration that Debian packages: another network,
/// another image of pause, and cgroups that systemd makes.
fn edited(text: &str, network: &Network) -> Result<String> {
    let cri = r#"[plugins."io.containerd.grpc.v1.cri"]"#;
    let usual = r#""/etc/cni/net.d""#;
    for part in [cri, usual] {
        ensure!(text.contains(part), "no {part} in the package's {text}");
    }
    let own = format!("{:?}", network.configuration());
    let pause = format!("{cri}\n    # As the tests have it.\n    sandbox_image = {PAUSE:?}");
    let text = text.replace(usual, &own).replacen(cri, &pause, 1);
    Ok(format!(
        r#"{text}
# The same driver as kubelet's.
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true # kubeadm's default
"#
    ))
}

fn configure(version: Version, dir: &Path, network: &Network, has_wisp: bool) -> String {
    let shim = paths::shim();
    let settings = dir.join("wisp.toml");
    let (shim, settings) = (shim.display(), settings.display());
    let (cni_conf, cni_bin) = (network.configuration(), network.plugins());
    let cni_conf = cni_conf.display();
    let wisp = |table: &str| {
        format!(
            r#"[{table}.containerd.runtimes.wisp]
runtime_type = "io.containerd.wisp.v1"
runtime_path = "{shim}"
pod_annotations = ["io.wisp.*"]

[{table}.containerd.runtimes.wisp.options]
ConfigPath = "{settings}"
"#
        )
    };
    let wisp = |table: &str| match has_wisp {
        true => wisp(table),
        false => String::new(),
    };
    // The same in both; only the tables' names differ.
    let runtime = |table: &str, more: &str| {
        let wisp = wisp(table);
        format!(
            r#"
[{table}]
{more}
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[{table}.containerd]
default_runtime_name = "runc"

[{table}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

{wisp}
[{table}.cni]
conf_dir = "{cni_conf}"
"#
        )
    };
    let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
    let streaming = r#"stream_server_address = "127.0.0.1"
stream_server_port = "0""#;
    let own = match version {
        Version::V1_6 => {
            let image = format!("sandbox_image = {PAUSE:?}\n{streaming}");
            format!("{}bin_dir = {cni_bin:?}\n", runtime(cri, &image))
        }
        Version::V2_1 => format!(
            r#"
{}
bin_dirs = ["{cni_bin}"]

[{cri}]
{streaming}

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
"#,
            runtime(r#"plugins."io.containerd.cri.v1.runtime""#, "")
        ),
    };
    let schema = match version {
        Version::V1_6 => 2,
        Version::V2_1 => 3,
    };
    configuration::with_pods(schema, dir) + &own
}
