//! The namespaces of a guest's process (runtime spec, `linux.namespaces`).
//!
//! The init role enters all but two by itself, before it forks: a PID namespace
//! holds only what is forked after it was entered, and a cgroup namespace is
//! rooted where the process is when it enters.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libcontainer::syscall::syscall::create_syscall;
use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type, Spec};

use crate::error::ContainerError;

/// What the init role enters itself, in this order.
const OWN: [Type; 3] = [Type::Network, Type::Ipc, Type::Uts];

/// A mount namespace to come back to.
#[derive(Debug)]
pub struct Home(File);

impl Home {
    /// Leaves for a mount namespace of our own: what is mounted there, nobody
    /// else sees, and it goes with the last process in it. What the host
    /// mounts and unmounts later is still passed on.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn leave() -> Result<Self, ContainerError> {
        use nix::mount::{MsFlags, mount};
        let failed = |e| ContainerError::Init(format!("enter a mount namespace: {e}"));
        let home = Self::current()?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
        let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed)?;
        Ok(home)
    }

    /// The mount namespace that the process is in.
    ///
    /// # Errors
    /// Without a `/proc`.
    pub fn current() -> Result<Self, ContainerError> {
        File::open("/proc/self/ns/mnt")
            .map(Self)
            .map_err(|e| ContainerError::Init(format!("open the mount namespace: {e}")))
    }

    /// Its descriptor's number.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Goes back; with the last process its namespace and mounts are gone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn go_back(&self) -> Result<(), ContainerError> {
        setns(&self.0, CloneFlags::CLONE_NEWNS)
            .map_err(|e| ContainerError::Init(format!("leave the mount namespace: {e}")))
    }
}

/// Refuses what a guest's process cannot have.
///
/// # Errors
/// Names the field.
pub fn check(spec: &Spec) -> Result<(), ContainerError> {
    let refused = |what: &str| Err(ContainerError::Unsupported(what.to_owned()));
    for namespace in listed(spec) {
        match (namespace.typ(), namespace.path()) {
            (Type::User, _) => {
                return refused(
                    "linux.namespaces: a Wasm container cannot have a user namespace; \
                     in a pod, leave out `hostUsers: false`",
                );
            }
            (Type::Mount, Some(_)) => {
                return refused(
                    "linux.namespaces: a Wasm container cannot join another mount namespace",
                );
            }
            (Type::Time, _) => {
                return refused("linux.namespaces: a Wasm container cannot have a time namespace");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Enters the network, IPC and UTS namespaces of `spec`, and sets what it says
/// about them: host name, domain name.
///
/// # Errors
/// The namespace's path, or the kernel's refusal.
pub fn enter(spec: &Spec) -> Result<(), ContainerError> {
    for kind in OWN {
        if let Some(namespace) = find(spec, kind) {
            enter_one(namespace)?;
        }
    }
    if find(spec, Type::Uts).is_some_and(|namespace| namespace.path().is_none()) {
        let system = create_syscall();
        if let Some(name) = spec.hostname() {
            system
                .set_hostname(name)
                .map_err(|e| ContainerError::Unsupported(format!("hostname: {name}: {e}")))?;
        }
        if let Some(name) = spec.domainname() {
            system
                .set_domainname(name)
                .map_err(|e| ContainerError::Unsupported(format!("domainname: {name}: {e}")))?;
        }
    }
    Ok(())
}

/// The PID namespace of a container, to be entered when the root has been
/// changed and the host's paths cannot be opened any more.
#[derive(Debug)]
pub struct Pids<'a> {
    namespace: Option<&'a LinuxNamespace>,
    file: Option<File>,
}

impl<'a> Pids<'a> {
    /// Opens the one that `spec` names, if it does.
    ///
    /// # Errors
    /// The namespace's path.
    pub fn open(spec: &'a Spec) -> Result<Self, ContainerError> {
        let namespace = find(spec, Type::Pid);
        let path = namespace.and_then(|namespace| namespace.path().as_deref());
        let file = path
            .map(|path| File::open(path).map_err(|e| not_joined(Type::Pid, path, &e)))
            .transpose()?;
        Ok(Self { namespace, file })
    }

    /// Enters it: what is forked from now on is in it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn enter(self) -> Result<(), ContainerError> {
        match (self.namespace, self.file) {
            (Some(_), Some(file)) => setns(file, CloneFlags::CLONE_NEWPID)
                .map_err(|e| ContainerError::Init(format!("join the pid namespace: {e}"))),
            (Some(namespace), None) => enter_one(namespace),
            (None, _) => Ok(()),
        }
    }
}

/// Enters the cgroup namespace of `spec`. To be called in the container's
/// cgroup.
///
/// # Errors
/// The namespace's path, or the kernel's refusal.
pub fn enter_cgroup(spec: &Spec) -> Result<(), ContainerError> {
    find(spec, Type::Cgroup).map_or(Ok(()), enter_one)
}

/// Whether a namespace is the host's: `spec` lists none of this kind, or the one
/// that this process is in. To be asked before it enters any. CRI names the
/// namespaces of the pod's first process also where they are the host's.
pub fn is_hosts(spec: &Spec, kind: Type) -> bool {
    let Some(namespace) = find(spec, kind) else {
        return true;
    };
    let Some(path) = namespace.path() else {
        return false;
    };
    let own = match kind {
        Type::Network => "net",
        Type::Mount => "mnt",
        Type::Ipc => "ipc",
        Type::Uts => "uts",
        Type::Pid => "pid",
        Type::User => "user",
        Type::Cgroup => "cgroup",
        Type::Time => "time",
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    // One that cannot be looked at fails the creation soon; until then, no
    // more is granted for it.
    let own = identity(&Path::new("/proc/self/ns").join(own));
    identity(path).is_none_or(|its| own == Some(its))
}

fn listed(spec: &Spec) -> impl Iterator<Item = &LinuxNamespace> {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten()
}

fn find(spec: &Spec, kind: Type) -> Option<&LinuxNamespace> {
    listed(spec).find(|namespace| namespace.typ() == kind)
}

fn enter_one(namespace: &LinuxNamespace) -> Result<(), ContainerError> {
    let flag = match namespace.typ() {
        Type::Network => CloneFlags::CLONE_NEWNET,
        Type::Ipc => CloneFlags::CLONE_NEWIPC,
        Type::Uts => CloneFlags::CLONE_NEWUTS,
        Type::Pid => CloneFlags::CLONE_NEWPID,
        Type::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        // Checked before: see `check`.
        Type::Mount | Type::User | Type::Time => return Ok(()),
    };
    let kind = namespace.typ();
    match namespace.path() {
        Some(path) => join(path, flag).map_err(|e| not_joined(kind, path, &e)),
        None => unshare(flag).map_err(|e| {
            ContainerError::Unsupported(format!("linux.namespaces: a new {kind} namespace: {e}"))
        }),
    }
}

fn not_joined(kind: Type, path: &Path, error: &std::io::Error) -> ContainerError {
    ContainerError::Unsupported(format!(
        "linux.namespaces: join the {kind} namespace {}: {error}",
        path.display()
    ))
}

fn join(path: &Path, flag: CloneFlags) -> std::io::Result<()> {
    Ok(setns(File::open(path)?, flag)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces}}}}}"#
        ))
        .expect("spec")
    }

    #[test]
    fn what_a_guest_cannot_have_is_refused_by_name() {
        for (bad, named) in [
            (r#"[{"type":"user"}]"#, "user namespace"),
            (
                r#"[{"type":"mount","path":"/proc/1/ns/mnt"}]"#,
                "mount namespace",
            ),
            (r#"[{"type":"time"}]"#, "time namespace"),
        ] {
            let error = check(&spec(bad)).expect_err(bad).to_string();
            assert!(error.contains(named), "{error}");
        }
        check(&spec(
            r#"[{"type":"mount"},{"type":"pid"},{"type":"network"}]"#,
        ))
        .expect("usual");
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let spec = spec(r#"[{"type":"network","path":"/nowhere/net"}]"#);
        let error = enter(&spec).expect_err("no such file").to_string();
        assert!(error.contains("/nowhere/net"), "{error}");
    }

    #[test]
    fn a_path_may_lead_to_the_hosts_namespace() {
        let is = |namespaces: &str| is_hosts(&spec(&format!("[{namespaces}]")), Type::Network);
        assert!(is(r#"{"type":"pid"}"#));
        assert!(!is(r#"{"type":"network"}"#));
        assert!(is(r#"{"type":"network","path":"/proc/self/ns/net"}"#));
        // Another one, of whatever kind.
        assert!(!is(r#"{"type":"network","path":"/proc/self/ns/uts"}"#));
        assert!(is(r#"{"type":"network","path":"/no/such/file"}"#));
    }
}
