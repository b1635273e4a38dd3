//! Guests: from the program's bytes to a process in its container that waits
//! for Start and then runs it.
//!
//! libcontainer is not asked: of what it does for a container a guest can use
//! little, and that little is done here, by the process itself, before its one
//! fork. See `docs/architecture.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use seccompiler::BpfProgram;
use wisp_capability::{Grant, Request, RootAccess, Volume, grant};
use wisp_config::Config;
use wisp_engine::ledger::Ledger;
use wisp_engine::{CpuLimit, HostPreopen, Setup, World};
use wisp_image::Program;

use super::code::{self, Code, Root};
use super::jail::{self, Jail};
use super::namespaces::{self, Home, Pids};
use super::{calls, confine, descriptors, groups, landlock, low_ports, sysctl, terminal, view};
use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, CpuFiles, Forked, Membership};
use crate::control::{Control, CreateRequest, Report};
use crate::error::ContainerError;
use crate::hooks::{self, Moment};
use crate::seccomp;

/// The annotation in which containerd's Kubernetes plugin tells the pod's namespace.
const POD_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";

/// Everything of a guest that is made before its process enters the container.
pub struct Guest {
    code: Code,
    grant: Grant,
    volumes: Vec<(Volume, oci_spec::runtime::Mount)>,
    filters: Vec<BpfProgram>,
    ledger: Ledger,
    /// Descriptors that its process keeps.
    keep: Vec<RawFd>,
}

impl Guest {
    /// Resolves `program` to mapped, linked AOT code.
    ///
    /// # Errors
    /// Whatever keeps the program from running, named.
    pub fn prepare(
        asked: Asked,
        program: Program,
        root: &Root<'_>,
        config: &Config,
        home: &Home,
        ledger: Ledger,
        control: &Control,
    ) -> Result<Self, ContainerError> {
        let Asked {
            filters,
            volumes,
            granted,
        } = asked;
        let code = code::load(program, root, config, &granted, control)?;
        // What is open now, the guest needs: the mapped AOT file, what Tokio has
        // made once for the whole process. What is opened from here on, it does
        // not.
        let mut keep = descriptors::open()
            .map_err(|e| ContainerError::Init(format!("list open descriptors: {e}")))?;
        keep.retain(|fd| *fd != home.descriptor());
        Ok(Self {
            code,
            grant: granted,
            volumes,
            filters,
            ledger,
            keep,
        })
    }

    /// Makes this process's descendant the guest's process: in the cgroup, the
    /// namespaces and the jail of its container, waiting for Start. Reports the
    /// descendant's pid; returns in the process that stays behind, and in the
    /// descendant only with an error.
    ///
    /// # Errors
    /// Whatever of the spec cannot be had, named.
    pub fn enter(
        self,
        spec: &Spec,
        rootfs: &Path,
        home: &Home,
        bundle: &Bundle,
        request: &CreateRequest,
        control: &Control,
    ) -> Result<(), ContainerError> {
        let process = spec.process().clone().unwrap_or_default();
        let cgroup = Cgroup::of(spec, &request.id);
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        if self.grant.root == RootAccess::Rw {
            view::leave(&request.rootfs, &bundle.rootfs())?;
        }
        let jail = Jail::mount(
            bundle,
            rootfs,
            self.grant.root,
            &self.volumes,
            !self.grant.outbound.is_empty(),
        )?;
        control.step("init: jail mounted");
        // After the jail's folder is there, which says, whatever fails from here
        // on, that there may be a cgroup to remove.
        let membership = Membership::create(&cgroup, resources)?;
        let memory_limit = cgroup.memory_limit();
        let cpu_limit = match self.code.prepared.world() {
            World::Http(_) => cgroup.cpu_limit(),
            World::Command(_) => CpuFiles::default(),
        };
        control.step("init: cgroup made");
        namespaces::enter(spec)?;
        sysctl::write(spec)?;
        groups::take(spec)?;
        confine::limits(&process)?;
        control.step("init: namespaces entered");
        self.hooks(spec, home, bundle, request)?;
        let pids = Pids::open(spec)?;
        let proc =
            File::open("/proc").map_err(|e| ContainerError::Init(format!("open /proc: {e}")))?;
        jail.enter()?;
        control.step("init: root changed");
        match membership.fork(|| pids.enter())? {
            Forked::Parent(pid) => {
                control.report(&Report::Forked(pid.as_raw()));
                Ok(())
            }
            Forked::Neither => Ok(()),
            Forked::Child => {
                control.step("guest: forked");
                (self.code.prepared)
                    .forked(proc.as_fd())
                    .map_err(|e| ContainerError::Init(format!("own page map: {e}")))?;
                drop(proc);
                let (memory, cpu) = (memory_limit.file(), cpu_limit.files());
                self.live(spec, process, memory, cpu, control)
            }
        }
    }

    fn hooks(
        &self,
        spec: &Spec,
        home: &Home,
        bundle: &Bundle,
        request: &CreateRequest,
    ) -> Result<(), ContainerError> {
        let run = |moment| {
            let own = i32::try_from(std::process::id()).ok();
            hooks::run(spec, moment, &request.id, own, bundle)
        };
        if hooks::any(spec, Moment::CreateRuntime) {
            let here = Home::current()?;
            home.go_back()?;
            let result = run(Moment::CreateRuntime);
            here.go_back()?;
            result?;
        }
        run(Moment::CreateContainer)
    }

    /// The rest of the guest's process's life.
    fn live(
        self,
        spec: &Spec,
        process: oci_spec::runtime::Process,
        memory_limit: Option<File>,
        cpu_limit: CpuLimit,
        control: &Control,
    ) -> Result<(), ContainerError> {
        let mut keep = self.keep;
        let limits = [&memory_limit, &cpu_limit.quota, &cpu_limit.period];
        keep.extend(limits.into_iter().flatten().map(AsRawFd::as_raw_fd));
        keep.sort_unstable();
        descriptors::close_all_but(&keep)
            .map_err(|e| ContainerError::Init(format!("close inherited descriptors: {e}")))?;
        terminal::control();
        namespaces::enter_cgroup(spec)?;
        let mut process = process;
        process.set_no_new_privileges(Some(true));
        // A guest calls nothing that any other of them would allow.
        let world = self.code.prepared.world();
        let kept = low_ports::capabilities(&process, &self.grant, world);
        process.set_capabilities(Some(kept.unwrap_or_else(confine::no_capabilities)));
        confine::user(&process)?;
        confine::undumpable()?;
        // From here on the container exists, and SIGTERM must end it even as
        // pid 1 of its namespace. An HTTP server takes it over when it runs.
        wisp_engine::install_command_signals()
            .map_err(|e| ContainerError::Init(format!("signal handlers: {e}")))?;
        landlock::leave_files()?;
        calls::leave(calls::Needs::of(&self.grant, world))?;
        seccomp::install(&self.filters)?;
        let setup = setup(self.grant, memory_limit, self.ledger, cpu_limit, control);
        control.step("guest: in its container");
        control.report(&Report::Waiting);
        if !control.wait_for_start() {
            // Nobody is left who could start it.
            std::process::exit(1);
        }
        control.step("guest: let go");
        // The artifact stays open: that says that the code is in use.
        let Code {
            prepared,
            artifact: _artifact,
        } = self.code;
        std::process::exit(prepared.run(setup))
    }
}

/// What a spec asks for a guest, understood and granted.
pub struct Asked {
    filters: Vec<BpfProgram>,
    volumes: Vec<(Volume, oci_spec::runtime::Mount)>,
    granted: Grant,
}

/// Reads all of `spec` that can be refused before anything is done.
///
/// # Errors
/// What of it is refused, named.
pub fn asked(spec: &Spec, namespace: &str, config: &Config) -> Result<Asked, ContainerError> {
    namespaces::check(spec)?;
    sysctl::check(spec)?;
    hooks::check(spec)?;
    let filters = seccomp::of(spec)?;
    let volumes = jail::volumes(spec);
    let found: Vec<_> = volumes.iter().map(|(volume, _)| volume.clone()).collect();
    let granted = capabilities(spec, namespace, config, &found)?;
    Ok(Asked {
        filters,
        volumes,
        granted,
    })
}

/// What a guest's container with this `spec` would be granted in `namespace`.
///
/// # Errors
/// Whatever of the spec cannot be had, named.
pub fn guest_of(spec: &Spec, namespace: &str, config: &Config) -> Result<Grant, ContainerError> {
    asked(spec, namespace, config).map(|asked| asked.granted)
}

/// What a guest with this `grant` runs with, in the jail; it tells `control`
/// when it runs, or why not. `memory_limit` and `cpu_limit` say what its
/// container's are by now, `ledger` what is used of the former.
pub(super) fn setup(
    grant: Grant,
    memory_limit: Option<File>,
    ledger: Ledger,
    cpu_limit: CpuLimit,
    control: &Control,
) -> Setup {
    let control = control.clone();
    Setup {
        preopens: preopens(&grant),
        config: config_dir(&grant),
        grant,
        memory_limit,
        ledger,
        cpu_limit,
        ready: Box::new(move |result| {
            control.step("guest: about to run");
            control.report(&match result {
                Ok(()) => Report::Ready,
                Err(reason) => Report::Failed(reason),
            });
            control.close();
        }),
    }
}

pub(super) fn capabilities(
    spec: &Spec,
    namespace: &str,
    config: &Config,
    volumes: &[Volume],
) -> Result<Grant, ContainerError> {
    let process = spec.process().clone().unwrap_or_default();
    let annotations: BTreeMap<_, _> = spec
        .annotations()
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let request = Request {
        args: process.args().as_deref().unwrap_or_default(),
        env: process.env().as_deref().unwrap_or_default(),
        cwd: &process.cwd().to_string_lossy(),
        annotations: &annotations,
        mounts: volumes,
        root_readonly: spec
            .root()
            .as_ref()
            .and_then(|root| root.readonly())
            .unwrap_or(false),
        host_network: namespaces::is_hosts(spec, LinuxNamespaceType::Network),
        memory_limit: memory_limit(spec),
        namespace: annotations
            .get(POD_NAMESPACE)
            .map_or(namespace, String::as_str),
        policy: &config.policy(),
    };
    let mut granted = grant(&request)?;
    // Here, before the process enters its container's network, the addresses are
    // the node's.
    if !granted.outbound.is_empty() {
        let addresses = wisp_engine::node_addresses()
            .map_err(|e| ContainerError::Init(format!("list the node's addresses: {e}")))?;
        granted.outbound.set_node(&addresses);
    }
    Ok(granted)
}

/// Where the files are whose content is configuration.
fn config_dir(granted: &Grant) -> Option<PathBuf> {
    granted.config_dir.as_deref().map(in_rootfs)
}

fn in_rootfs(path: &str) -> PathBuf {
    Path::new(jail::ROOTFS).join(path.trim_start_matches('/'))
}

/// The container's memory limit in bytes. Zero and less are none.
fn memory_limit(spec: &Spec) -> Option<u64> {
    let resources = spec.linux().as_ref()?.resources().as_ref()?;
    let limit = resources.memory().as_ref()?.limit()?;
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}

/// The guest's preopens as paths inside the jail. Whether they can be written
/// is decided by the mounts.
fn preopens(granted: &Grant) -> Vec<HostPreopen> {
    granted
        .preopens
        .iter()
        .map(|preopen| HostPreopen {
            host: in_rootfs(&preopen.guest),
            guest: preopen.guest.clone(),
            writable: preopen.writable,
        })
        .collect()
}
