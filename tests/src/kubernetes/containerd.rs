//! The node's containerd as a unit of systemd's has it, and what stands in for
//! systemd.

use super::Server;
use crate::{Version, cgroups, command};
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Where it is configured, as everywhere.
pub const CONFIG: &str = "/etc/containerd/config.toml";
/// Where it listens, as everywhere.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// What stands in for `systemctl`: process 1 is asked by a file.
const SYSTEMCTL: &str = "/usr/local/bin/systemctl";
const ASKED: &str = "/run/systemd/restart";
const UNIT: &str = "system.slice/containerd.service";
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of a node, with a comment of its owner's.
fn configuration(plugins: &str, pause: &str) -> String {
    format!(
        r#"version = 3
# Changed by hand: ask before you do.
[plugins."io.containerd.cri.v1.runtime"]
# Nothing here may give a process more weight before the OOM killer.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{plugins}"]
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
"#
    )
}

/// The containerd, which is restarted whenever somebody asks for that.
#[derive(Debug)]
pub struct Containerd {
    server: Arc<Mutex<Server>>,
    done: Arc<AtomicBool>,
}

impl Containerd {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(logs: &Path, plugins: &str, pause: &str) -> Result<Self> {
        Version::V2_1.obtain().map_err(anyhow::Error::msg)?;
        fs::create_dir_all("/etc/containerd")?;
        fs::write(CONFIG, configuration(plugins, pause))?;
        for name in ["containerd", "ctr"] {
            let (from, to) = (Version::V2_1.programs().join(name), "/usr/local/bin");
            fs::copy(from, Path::new(to).join(name))?;
        }
        fs::create_dir_all("/run/systemd/system")?;
        fs::write(
            SYSTEMCTL,
            format!(
                "#!/bin/sh\n[ \"$*\" = 'restart containerd.service' ] || exit 9\n\
                 touch {ASKED}\nwhile [ -e {ASKED} ]; do sleep 0.05; done\n"
            ),
        )?;
        fs::set_permissions(SYSTEMCTL, fs::Permissions::from_mode(0o755))?;
        let server = Arc::new(Mutex::new(run(logs)?));
        let done = Arc::new(AtomicBool::new(false));
        let (shared, ends, logs) = (Arc::clone(&server), Arc::clone(&done), logs.to_owned());
        thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if Path::new(ASKED).exists() {
                    let mut server = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    server.stop();
                    match run(&logs) {
                        Ok(new) => *server = new,
                        Err(error) => eprintln!("wisp-tests: restart: {error:#}"),
                    }
                    let _ = fs::remove_file(ASKED);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Self { server, done })
    }

    /// Imports an archive of images for pods.
    ///
    /// # Errors
    /// What `ctr` said.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let mut ctr = Command::new("/usr/local/bin/ctr");
        ctr.args([
            "--namespace",
            "k8s.io",
            "image",
            "import",
            "--all-platforms",
        ])
        .arg(archive);
        let ended = command::run(&mut ctr, Vec::new(), PATIENCE)?;
        ensure!(
            ended.code == 0,
            "import {}: {}",
            archive.display(),
            ended.err()
        );
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.stop();
    }
}

fn run(logs: &Path) -> Result<Server> {
    // The cgroup by which a process is one of a unit; version 1 has it apart.
    let hierarchies = match cgroups::unified() {
        true => vec![cgroups::MOUNT.to_owned()],
        false => ["systemd", "unified"]
            .map(|name| format!("{}/{name}", cgroups::MOUNT))
            .to_vec(),
    };
    let mut script = String::from("set -e; ");
    for group in hierarchies.iter().filter(|path| Path::new(path).exists()) {
        script += &format!("mkdir -p {group}/{UNIT}; echo $$ >{group}/{UNIT}/cgroup.procs; ");
    }
    script += "exec /usr/local/bin/containerd";
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env_remove("TMPDIR");
    let mut server = Server::start(logs, "containerd", &mut shell)?;
    server.until("containerd answers", PATIENCE, || {
        let mut ctr = Command::new("/usr/local/bin/ctr");
        let said = command::run(ctr.arg("version"), Vec::new(), PATIENCE).ok()?;
        (said.code == 0).then_some(())
    })?;
    Ok(server)
}
