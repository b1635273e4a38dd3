//! A bridge network of one containerd's pods, made by the CNI plugins that
//! Debian packages. Its name and addresses are nobody else's, so that runs side
//! by side do not meet.

use crate::command;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// The bridge plugin switches it on, for the whole machine.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while looking for addresses that nobody uses.
static CHOOSING: Mutex<()> = Mutex::new(());

/// The network of one containerd.
#[derive(Debug)]
pub struct Network {
    name: String,
    dir: PathBuf,
    subnet: [u8; 3],
    forwarding: String,
}

impl Network {
    /// Describes a network in `dir` for the plugins, which make it for the
    /// first pod. `number` tells the networks of this process apart.
    ///
    /// # Errors
    /// When plugins are missing, or no subnet is free.
    pub fn new(dir: &Path, number: u8) -> Result<Self> {
        for plugin in ["bridge", "host-local", "loopback", "portmap"] {
            ensure!(
                Path::new(PLUGINS).join(plugin).exists(),
                "the CNI plugin {PLUGINS}/{plugin} is missing: run `make setup`"
            );
        }
        let network = Self {
            // The names of network interfaces have at most 15 bytes.
            name: format!("wisp{}-{number}", std::process::id()),
            dir: dir.join("cni"),
            subnet: free_subnet(number)?,
            forwarding: fs::read_to_string(FORWARDING).context(FORWARDING)?,
        };
        fs::create_dir_all(network.configuration())?;
        fs::write(
            network.configuration().join("10-wisp.conflist"),
            serde_json::to_vec_pretty(&json!({
                "cniVersion": "0.4.0",
                "name": network.name,
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": network.name,
                        "isGateway": true,
                        "ipMasq": false,
                        "hairpinMode": true,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": network.dir.join("addresses"),
                            "ranges": [[{ "subnet": format!("{}/24", network.address(0)) }]],
                            "routes": [{ "dst": "0.0.0.0/0" }],
                        },
                    },
                    { "type": "portmap", "capabilities": { "portMappings": true } },
                ],
            }))?,
        )?;
        Ok(network)
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, host)
    }

    /// The host's own address in the network.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The directory of its configuration.
    pub fn configuration(&self) -> PathBuf {
        self.dir.clone()
    }

    /// The directory of the plugins.
    pub fn plugins(&self) -> &'static str {
        PLUGINS
    }

    /// Whether a pod has this address.
    pub fn has_lease(&self, address: &str) -> bool {
        let leases = self.dir.join("addresses").join(&self.name);
        leases.join(address).exists()
    }

    /// The pods' ends of its cables that are there now.
    pub fn cables(&self) -> Vec<String> {
        fs::read_dir(format!("/sys/class/net/{}/brif", self.name))
            .map(|entries| {
                entries
                    .filter_map(|entry| {
                        Some(entry.ok()?.file_name().to_string_lossy().into_owned())
                    })
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Removes the bridge, and what pods that are gone left at it.
    pub fn remove(&self) {
        for link in self.cables().iter().chain([&self.name]) {
            if Path::new("/sys/class/net").join(link).exists() {
                let mut ip = Command::new("ip");
                ip.args(["link", "delete", link]);
                if let Err(error) = command::run(&mut ip, Vec::new(), PATIENCE) {
                    eprintln!("wisp-tests: {error:#}");
                }
            }
        }
        let _ = fs::write(FORWARDING, &self.forwarding);
    }
}

/// A /24 that no route of this machine leads to.
fn free_subnet(number: u8) -> Result<[u8; 3]> {
    let _one = CHOOSING.lock();
    let routes = fs::read_to_string("/proc/net/route").context("/proc/net/route")?;
    // In the table an address is the number that its bytes, in network order,
    // are in memory.
    let used: Vec<[u8; 4]> = routes
        .lines()
        .skip(1)
        .filter_map(|line| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
        .map(u32::to_ne_bytes)
        .collect();
    let start = std::process::id().wrapping_mul(2);
    (0..u32::from(u16::MAX))
        .map(|step| {
            let [_, _, b, c] = start
                .wrapping_add(u32::from(number))
                .wrapping_add(step * 7)
                .to_be_bytes();
            [10, b, c]
        })
        .find(|subnet| !used.iter().any(|used| used[..3] == subnet[..]))
        .context("no private /24 is free")
}
