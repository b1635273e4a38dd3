//! Guests: from the program's bytes to an executor that runs them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use seccompiler::BpfProgram;
use wisp_capability::{Grant, Request, RootAccess, Volume, grant};
use wisp_config::Config;
use wisp_engine::{HostPreopen, Setup};
use wisp_image::Program;

use super::code::{self, Code, Root};
use super::descriptors;
use super::jail;
use super::streams::Streams;
use super::terminal;
use crate::bundle::Bundle;
use crate::control::{Control, Report};
use crate::error::ContainerError;
use crate::seccomp;

/// How long an HTTP server may drain after SIGTERM before it ends by itself.
/// kubelet's default grace period is 30 s; whoever asks for less sends SIGKILL.
const DRAIN: Duration = Duration::from_secs(30);

/// Everything of a guest that is made before its process enters the container.
struct Guest {
    code: Code,
    grant: Grant,
    preopens: Vec<HostPreopen>,
    filters: Vec<BpfProgram>,
    control: Control,
    streams: Streams,
    keep: Vec<RawFd>,
}

/// The executor that becomes the guest. libcontainer wants it to be `Clone`;
/// there is one guest, taken by the process that runs it.
#[derive(Clone)]
pub struct Wasm {
    guest: Rc<RefCell<Option<Guest>>>,
}

/// Resolves `program` to mapped, linked AOT code and derives the spec of the
/// process that will run it.
///
/// # Errors
/// Whatever keeps the program from running, named.
pub fn prepare(
    spec: &Spec,
    root: &Root<'_>,
    program: Program,
    config: &Config,
    bundle: &Bundle,
    filters: Vec<BpfProgram>,
    creator: &Control,
) -> Result<(Spec, Wasm), ContainerError> {
    let volumes = jail::volumes(spec);
    let granted = capabilities(
        spec,
        &volumes.iter().map(|(v, _)| v.clone()).collect::<Vec<_>>(),
    )?;
    let code = code::load(program, root, config, creator)?;
    let spec = jail::spec(
        spec,
        root.path,
        bundle,
        granted.root,
        &volumes,
        !granted.outbound.is_empty(),
    )?;
    let control = creator
        .try_clone()
        .map_err(|e| ContainerError::Init(format!("control socket: {e}")))?;
    let streams = Streams::save()?;
    // What is open now, the guest needs (the mapped AOT file, its end of the
    // control socket); what libcontainer opens from here on, it does not.
    let mut keep = descriptors::open()
        .map_err(|e| ContainerError::Init(format!("list open descriptors: {e}")))?;
    keep.retain(|fd| *fd != creator.descriptor());
    let guest = Guest {
        code,
        preopens: preopens(&granted),
        grant: granted,
        filters,
        control,
        streams,
        keep,
    };
    let executor = Wasm {
        guest: Rc::new(RefCell::new(Some(guest))),
    };
    Ok((spec, executor))
}

fn capabilities(spec: &Spec, volumes: &[Volume]) -> Result<Grant, ContainerError> {
    let process = spec.process().clone().unwrap_or_default();
    let annotations: BTreeMap<_, _> = spec
        .annotations()
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let host_network = !spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Network);
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
        host_network,
    };
    Ok(grant(&request)?)
}

/// The guest's preopens as paths inside the jail. Whether they can be written
/// is decided by the mounts.
fn preopens(granted: &Grant) -> Vec<HostPreopen> {
    match granted.root {
        RootAccess::Ro | RootAccess::Rw => vec![HostPreopen {
            host: PathBuf::from(jail::ROOTFS),
            guest: "/".into(),
            writable: true,
        }],
        RootAccess::None => granted
            .preopens
            .iter()
            .map(|preopen| HostPreopen {
                host: Path::new(jail::ROOTFS).join(preopen.guest.trim_start_matches('/')),
                guest: preopen.guest.clone(),
                writable: preopen.writable,
            })
            .collect(),
    }
}

impl Executor for Wasm {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let Some(guest) = self.guest.borrow_mut().take() else {
            return Err(ExecutorError::Other(
                "the guest has been run already".into(),
            ));
        };
        let Guest {
            code: Code {
                prepared,
                artifact: _in_use,
            },
            grant,
            preopens,
            filters,
            control,
            streams,
            keep,
        } = guest;
        let failed = |reason: String| {
            control.report(&Report::Failed(reason.clone()));
            ExecutorError::Other(reason)
        };
        descriptors::close_all_but(&keep)
            .map_err(|e| failed(format!("close inherited descriptors: {e}")))?;
        streams.restore().map_err(|e| failed(e.to_string()))?;
        terminal::control();
        seccomp::install(&filters).map_err(|e| failed(e.to_string()))?;
        let code = prepared.run(Setup {
            grant,
            preopens,
            grace: DRAIN,
            ready: Box::new(move |result| {
                control.report(&match result {
                    Ok(()) => Report::Ready,
                    Err(reason) => Report::Failed(reason),
                });
            }),
        });
        std::process::exit(code)
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        // From here on the container exists, and SIGTERM must end it even as
        // pid 1 of its namespace. An HTTP server takes it over when it runs.
        wisp_engine::install_command_signals()
            .map_err(|e| ExecutorValidationError::ArgValidationError(e.to_string()))
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The container's environment is the guest's business and part of its
        // grant; this process started with an empty one and keeps it.
        Ok(())
    }
}
