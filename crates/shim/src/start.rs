//! The `start` role: finds or starts the pod's daemon and prints its address.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use containerd_shim::protos::shim::oci;
use containerd_shim::{Flags, StartOpts};
use log::warn;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::Deserialize;

use crate::bootstrap;

/// The annotation by which CRI names the pod a container belongs to.
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// Runs the role. containerd executes it with the bundle as working directory.
///
/// # Errors
/// Printed by the caller; containerd shows it as the reason.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let (opts, answer) = bootstrap::read(flags)?;
    let group = pod(Path::new("config.json")).unwrap_or_else(|| opts.id.clone());
    let address = opts.socket_address(&group);
    let path = address.trim_start_matches("unix://");
    // `delete` and containerd 1.6 find the daemon again by this file. First, so
    // that a socket of ours is known also if we are killed right after making it.
    fs::write("address", &address).context("write the bundle's file `address`")?;
    if let Some(listener) = listen(Path::new(path))? {
        let started = spawn(&opts, &group, &address, &listener);
        if started.is_err() {
            let _ = fs::remove_file(path);
        }
        started?;
    }
    let mut stdout = std::io::stdout();
    stdout.write_all(&answer.encode(&address)?)?;
    stdout.flush().context("answer containerd")
}

/// The pod that the bundle's spec names, if any. A spec that cannot be read is
/// no error yet: Create reports it, with the reason.
pub fn pod(config: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: std::collections::HashMap<String, String>,
    }
    let text = fs::read(config).ok()?;
    let spec: Annotated = serde_json::from_slice(&text).ok()?;
    spec.annotations
        .get(SANDBOX_ID)
        .filter(|id| !id.is_empty())
        .cloned()
}

/// Binds the pod's socket, or answers `None` if a daemon listens there. A
/// socket left by a daemon that died is replaced.
fn listen(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711))
            .with_context(|| format!("protect {}", dir.display()))?;
    }
    // More than once only if several starts meet at the same stale socket.
    for _ in 0..8 {
        match UnixListener::bind(path) {
            Ok(listener) => {
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                    .with_context(|| format!("protect {}", path.display()))?;
                return Ok(Some(listener));
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context(format!("listen at {}", path.display())),
        }
        match UnixStream::connect(path) {
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // Connecting to any other kind of file is refused as well.
                if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
                    anyhow::bail!("{} is in the way: it is not a socket", path.display());
                }
                match fs::remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(error)
                            .context(format!("remove stale socket {}", path.display()));
                    }
                    _ => {}
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("connect to {}", path.display())),
        }
    }
    anyhow::bail!("{} is contended", path.display())
}

fn spawn(
    opts: &StartOpts,
    group: &str,
    address: &str,
    listener: &UnixListener,
) -> anyhow::Result<()> {
    // This process has one thread: nothing else can inherit the listener.
    fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty())).context("pass the listener")?;
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command
        .arg0("containerd-shim-wisp-v1")
        .args(["serve", &listener.as_raw_fd().to_string()])
        .args(["-namespace", &opts.namespace])
        .args(["-id", group])
        .args(["-address", &opts.address])
        .args(["-socket", address])
        .env("TTRPC_ADDRESS", &opts.ttrpc_address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Signals for containerd's process group must not reach the pod.
        .process_group(0);
    if opts.debug {
        command.arg("-debug");
    }
    let mut child = command.spawn().context("start the daemon")?;
    if let Err(error) = confine(opts, child.id()) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(())
}

/// Puts the daemon into the cgroup that the runtime options name, and makes
/// the kernel prefer it slightly over containerd when memory runs out.
fn confine(opts: &StartOpts, pid: u32) -> anyhow::Result<()> {
    let options = opts
        .extension::<oci::Options>()
        .ok()
        .flatten()
        .unwrap_or_default();
    if !options.shim_cgroup.is_empty() {
        containerd_shim::cgroup::add_task_to_cgroup(&options.shim_cgroup, pid)
            .with_context(|| format!("join the shim's cgroup {}", options.shim_cgroup))?;
    }
    if let Err(error) = containerd_shim::cgroup::adjust_oom_score(pid) {
        warn!("oom score of the daemon: {error}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_grouped_by_its_pod() {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = dir.path().join("config.json");
        fs::write(
            &config,
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod1","x":"y"}}"#,
        )
        .expect("write");
        assert_eq!(pod(&config), Some("pod1".into()));
        fs::write(&config, r#"{"ociVersion":"1.0.2"}"#).expect("write");
        assert_eq!(pod(&config), None);
        fs::write(&config, "not json").expect("write");
        assert_eq!(pod(&config), None);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_joined() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s/1");
        let first = listen(&path).expect("bind").expect("new");
        assert!(listen(&path).expect("join").is_none());
        drop(first);
        assert!(path.exists(), "the file outlives its listener");
        assert!(listen(&path).expect("rebind").is_some());
    }

    #[test]
    fn a_file_in_the_sockets_place_is_left_alone() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("file");
        fs::write(&path, "precious").expect("write");
        assert!(listen(&path).is_err());
        assert!(path.exists());
    }
}
