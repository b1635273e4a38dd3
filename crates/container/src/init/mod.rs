//! The init role: the process that creates the container and, for a guest,
//! becomes it.
//!
//! It has one thread from its start to the guest's, because it forks: the fork
//! keeps the engine, the mapped code and the linked program, and only those
//! descriptors that the guest needs. A native program's container is made by
//! libcontainer.

mod attach;
mod calls;
mod code;
mod confine;
mod descriptors;
pub mod exec;
mod groups;
mod jail;
mod landlock;
mod low_ports;
mod lower;
mod namespaces;
mod native;
mod places;
mod settings;
mod streams;
mod sysctl;
mod terminal;
mod view;
mod wasm;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::Executor;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use wisp_engine::ledger::Ledger;
use wisp_image::{Program, Rootfs};

pub use self::wasm::guest_of;

use self::namespaces::Home;
use self::terminal::ConsoleSocket;
use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::control::{Control, CreateRequest, Created, ProgramKind, Report};
use crate::devices;
use crate::error::ContainerError;
use crate::hooks::{self, Moment};
use crate::mounts::mount_all;
use crate::seccomp;
use crate::shares::FIRST;
use crate::trace;

/// Runs the init role with the control socket that the daemon passed as
/// descriptor `fd`; answers the exit code of this (short-lived) process.
///
/// # Errors
/// When `fd` is not a socket or carries no request: nobody to report to.
pub fn main(fd: RawFd) -> Result<i32, String> {
    let control = take_control(fd)?;
    let entered = trace::now();
    let request: CreateRequest = control.request().map_err(|e| format!("request: {e}"))?;
    control.trace(request.traced);
    control.step_at("init: entered main", entered);
    control.step("init: request read");
    let bundle = Bundle::new(&request.bundle);
    match create(&request, &bundle, &control) {
        Ok(()) => Ok(0),
        Err(error) => {
            // The daemon cleans up: this process may have entered the container.
            control.report(&Report::Failed(error.to_string()));
            Ok(1)
        }
    }
}

/// The control socket that the daemon passed as descriptor `fd`. From then on
/// this process lives no longer than the daemon.
fn take_control(fd: RawFd) -> Result<Control, String> {
    close_on_exec(fd).map_err(|e| format!("descriptor {fd}: {e}"))?;
    // SAFETY: the daemon passed this descriptor to this process alone, it is
    // open (checked just above), and nothing else here uses its number.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let control = Control::new(UnixStream::from(owned));
    // Without its daemon nobody would clean up after a creation. (Not inherited
    // by the container; and should the daemon be gone already, so is the socket.)
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|e| format!("parent death signal: {e}"))?;
    Ok(control)
}

/// This process's `place` in the ledger that the daemon passed as descriptor `fd`.
/// Nothing of it is open afterwards.
fn take_ledger(fd: RawFd, place: usize) -> Result<Ledger, ContainerError> {
    let failed = |error: std::io::Error| ContainerError::Init(format!("ledger: {error}"));
    close_on_exec(fd).map_err(|errno| failed(errno.into()))?;
    // SAFETY: the daemon passed this descriptor to this process alone, it is
    // open (checked just above), and nothing else here uses its number.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Ledger::join(owned, place).map_err(failed)
}

fn close_on_exec(fd: RawFd) -> Result<(), nix::errno::Errno> {
    // SAFETY: the descriptor is only borrowed for this call, which fails
    // cleanly if the number is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop)
}

fn create(
    request: &CreateRequest,
    bundle: &Bundle,
    control: &Control,
) -> Result<(), ContainerError> {
    let ledger = take_ledger(request.ledger, FIRST)?;
    let spec = load_spec(&bundle.config())?;
    let settings = settings::load(request)?;
    control.step("init: spec and config read");
    let home = Home::leave()?;
    mount_all(&view::of(&request.rootfs), &bundle.rootfs())?;
    control.step("init: root file system mounted");

    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| ContainerError::Unsupported("the spec has no root".into()))?;
    let root_path = bundle.path().join(root.path());
    let rootfs = Rootfs::open(&root_path)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or_else(|| ContainerError::Unsupported("the spec has no process".into()))?;
    let has_terminal = process.terminal() == Some(true);
    let args = process.args().clone().unwrap_or_default();
    let env = process.env().clone().unwrap_or_default();
    let cwd = process.cwd().to_string_lossy().into_owned();
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH="));

    let mut layers = || wisp_image::layers(&request.containerd, &request.namespace, &request.id);
    let program = wisp_image::choose(&args, path, &cwd, &rootfs, &mut layers)?;
    drop(rootfs);
    control.step("init: program chosen");

    let created = |kind, pid| Created {
        pid,
        kind,
        cgroup: Cgroup::of(&spec, &request.id),
        shares_pids: shares_pids(&spec),
        hooks: kind == ProgramKind::Wasm
            && (hooks::any(&spec, Moment::Poststart) || hooks::any(&spec, Moment::Poststop)),
    };
    match program {
        Program::Native => {
            // What such a program mounts may have to be seen by the host.
            home.go_back()?;
            mount_all(&request.rootfs, &bundle.rootfs())?;
            groups::take(&spec)?;
            let executor = native::Native::new(seccomp::of(&spec)?, control, has_terminal)?;
            let cgroup = Cgroup::of(&spec, &request.id);
            let derived = native::spec(&spec, &root_path);
            let pid = build(
                request,
                bundle,
                derived,
                &cgroup,
                Box::new(executor),
                control,
            )?;
            control.report(&Report::Created(created(ProgramKind::Native, pid)));
        }
        wasm => {
            if has_terminal {
                terminal::open(process, control)?;
            }
            let root = code::Root {
                path: &root_path,
                mounts: &request.rootfs,
            };
            let asked = wasm::asked(&spec, &request.namespace, &settings.config)?;
            let guest =
                wasm::Guest::prepare(asked, wasm, &root, &settings.config, &home, ledger, control)?;
            control.report(&Report::Created(created(ProgramKind::Wasm, 0)));
            settings.keep(bundle)?;
            guest.enter(&spec, &root_path, &home, bundle, request, control)?;
        }
    }
    Ok(())
}

/// Without a pid namespace of its own a container's first process is nobody's
/// init, and the kernel does not end the others with it.
fn shares_pids(spec: &Spec) -> bool {
    !spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
}

fn build(
    request: &CreateRequest,
    bundle: &Bundle,
    mut spec: Spec,
    cgroup: &Cgroup,
    executor: Box<dyn Executor>,
    control: &Control,
) -> Result<i32, ContainerError> {
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(cgroup.path().to_owned()));
    }
    let own = bundle.own();
    bundle.create_dir(&bundle.state())?;
    spec.save(own.join("config.json"))
        .map_err(|error| ContainerError::Spec {
            path: own.join("config.json"),
            reason: error.to_string(),
        })?;
    let failed = |source| ContainerError::library("create", &request.id, source);
    let process = spec.process().clone().unwrap_or_default();
    let console = match process.terminal() {
        Some(true) => Some(ConsoleSocket::listen(&own)?),
        _ => None,
    };
    let container = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .validate_id()
        .map_err(failed)?
        .with_executor(BoxedExecutor(executor))
        .with_root_path(bundle.state())
        .map_err(failed)?
        .with_console_socket(console.as_ref().map(ConsoleSocket::path))
        .as_init(&own)
        .with_systemd(cgroup.systemd())
        .with_detach(true)
        // Ours until we end, then the daemon's, which is a subreaper. As its
        // sibling, libcontainer would not wait for its intermediate process,
        // which may then still be in the cgroup when the container is deleted.
        .as_sibling(false)
        .build()
        .map_err(failed)?;
    if let Some(console) = console {
        console.forward(control)?;
    }
    let pid = container
        .pid()
        .map(|pid| pid.as_raw())
        .ok_or_else(|| ContainerError::Init("libcontainer reported no pid".into()))?;
    // The program is not running yet; it waits for Start.
    devices::confine(&spec, pid)?;
    Ok(pid)
}

/// Lets one builder call take either executor.
#[derive(Clone)]
struct BoxedExecutor(Box<dyn Executor>);

impl Executor for BoxedExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), libcontainer::workload::ExecutorError> {
        self.0.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), libcontainer::workload::ExecutorValidationError> {
        self.0.validate(spec)
    }

    fn setup_envs(
        &self,
        envs: std::collections::HashMap<String, String>,
    ) -> Result<(), libcontainer::workload::ExecutorSetEnvsError> {
        self.0.setup_envs(envs)
    }
}

fn load_spec(path: &Path) -> Result<Spec, ContainerError> {
    Spec::load(path).map_err(|error| ContainerError::Spec {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod broken_tests;
