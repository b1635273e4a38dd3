//! What a container can leave behind, and looking for it.
//!
//! Tests run side by side, so what is found must be somebody's: everything
//! wisp makes for a container carries the containerd namespace, and each test
//! has a namespace of its own. What carries no name is found by comparing the
//! whole machine before and after all tests ([`Snapshot`]).

use crate::containerd::Containerd;
use crate::{cgroups, paths, processes, wait};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where containerd's shims have their sockets.
const SOCKETS: &str = "/run/containerd/s";
/// wisp's own runtime state.
const RUN: &str = "/run/wisp";
/// How long what a container had may take to go once it is deleted.
pub const GONE: Duration = Duration::from_secs(15);

/// Everything there is of `namespace`, whose containers had these `ids`.
pub fn of(node: &Containerd, namespace: &str, ids: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for process in processes::concerning(namespace) {
        let state = if process.is_zombie() { " (zombie)" } else { "" };
        found.push(format!("process {}{state}: {}", process.pid, process.line));
    }
    found.extend(
        mounts()
            .into_iter()
            .filter(|mount| mount.contains(namespace))
            .map(|m| format!("mount {m}")),
    );
    found.extend(
        cgroups(namespace)
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    for id in ids {
        let socket = socket(node, namespace, id);
        if socket.exists() {
            found.push(format!("socket {} of {id}", socket.display()));
        }
    }
    let state = "io.containerd.runtime.v2.task";
    for base in [node.state(), node.root()] {
        found.extend(
            children(&base.join(state).join(namespace))
                .iter()
                .map(|path| format!("directory {}", path.display())),
        );
    }
    found.extend(
        below(Path::new(RUN))
            .iter()
            .filter(|path| path.to_string_lossy().contains(namespace))
            .map(|path| format!("file {}", path.display())),
    );
    found
}

/// The socket of the shim that serves a pod or container, as containerd's own
/// shims name it: by a hash of containerd's address, namespace and id.
pub fn socket(node: &Containerd, namespace: &str, id: &str) -> PathBuf {
    let name = node.socket().join(namespace).join(id);
    let hash = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let mut hex = String::new();
    for byte in hash {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Path::new(SOCKETS).join(hex)
}

/// The mount table's lines.
pub fn mounts() -> Vec<String> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The control groups of a namespace's containers, in every hierarchy.
pub fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let mut roots = children(Path::new(cgroups::MOUNT));
    roots.push(PathBuf::from(cgroups::MOUNT));
    let own = roots
        .iter()
        .flat_map(|root| children(&root.join(namespace)))
        .filter(|path| path.is_dir());
    own.chain(scopes(namespace)).collect()
}

/// The scopes that systemd has made for a namespace's containers. Only version
/// 2 has them.
fn scopes(namespace: &str) -> Vec<PathBuf> {
    if !cgroups::systemd() {
        return Vec::new();
    }
    below(Path::new(cgroups::MOUNT))
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(namespace) && name.ends_with(".scope")
        })
        .collect()
}

/// Removes the namespace's own, empty control groups, which runtimes leave.
pub fn remove_empty_cgroups(namespace: &str) {
    for root in children(Path::new(cgroups::MOUNT)) {
        let _ = fs::remove_dir(root.join(namespace));
    }
    let _ = fs::remove_dir(Path::new(cgroups::MOUNT).join(namespace));
}

/// What is known of the machine's containerds and files until the next boot.
fn is_knowledge(path: &Path) -> bool {
    path.starts_with(Path::new(RUN).join("aot"))
        || path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"containerd-"))
}

/// What is in a directory; nothing if there is none.
pub fn children(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default()
}

/// Everything below a directory, links not followed.
pub fn below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = children(path);
    while let Some(path) = pending.pop() {
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            pending.extend(children(&path));
        }
        found.push(path);
    }
    found
}

/// What nobody owns on the machine at some moment. What another containerd of
/// the machine has running meanwhile is somebody's and does not count.
#[derive(Debug)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks now.
    pub fn take() -> Self {
        let mut all = BTreeSet::new();
        for process in processes::all() {
            let ours = process
                .program()
                .is_some_and(|path| path == paths::shim() || path == paths::wisp());
            // A daemon is nobody's child either, but says whose it is.
            let orphan = process.parent() == Some(1) && !process.line.contains("-address");
            if ours && orphan {
                all.insert(format!("process {}: {}", process.pid, process.line));
            }
        }
        let listening = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        for socket in children(Path::new(SOCKETS)) {
            let path = socket.display().to_string();
            if !listening.lines().any(|line| line.ends_with(&path)) {
                all.insert(format!("socket {path}"));
            }
        }
        // What a shim learned stays until the next boot.
        all.extend(
            below(Path::new(RUN))
                .iter()
                .filter(|path| !is_knowledge(path))
                .map(|path| format!("file {}", path.display())),
        );
        Self(all)
    }

    /// What is there now, and stays, and was not there then.
    pub fn new_since(&self) -> Vec<String> {
        let mut new: BTreeSet<String> = BTreeSet::new();
        wait::until(GONE, || {
            new = Self::take().0.difference(&self.0).cloned().collect();
            new.is_empty().then_some(())
        });
        new.into_iter().collect()
    }
}
