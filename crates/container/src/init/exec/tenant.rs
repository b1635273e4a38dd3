//! A further process in a native container, by libcontainer's tenant.

use std::fs;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::control::{Control, ExecRequest};
use crate::error::ContainerError;
use crate::init::groups;
use crate::init::native::Native;
use crate::init::terminal::ConsoleSocket;
use crate::seccomp;

/// Adds the process; answers its pid once its program runs.
///
/// # Errors
/// libcontainer's reason.
pub fn add(
    request: &ExecRequest,
    bundle: &Bundle,
    spec: &Spec,
    control: &Control,
) -> Result<i32, ContainerError> {
    let filters = seccomp::of(spec)?;
    groups::take(spec)?;
    let has_terminal = request.process.terminal() == Some(true);
    let executor = Native::new(filters, control, has_terminal)?;
    let place = Place::make(bundle, request)?;
    let console = match has_terminal {
        true => Some(ConsoleSocket::listen(&place.path)?),
        false => None,
    };
    let failed = |source| ContainerError::library("execute in", &request.id, source);
    let pid = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .validate_id()
        .map_err(failed)?
        .with_executor(executor)
        .with_root_path(&place.path)
        .map_err(failed)?
        .with_console_socket(console.as_ref().map(ConsoleSocket::path))
        .as_tenant()
        .with_detach(true)
        .as_sibling(false)
        .with_process(Some(place.process()))
        .build()
        .map_err(failed)?;
    if let Some(console) = console {
        console.forward(control)?;
    }
    Ok(pid.as_raw())
}

/// A copy of libcontainer's state for this one process. A tenant leaves sockets
/// in the state's directory, under names that nobody is told; a container that
/// is probed every few seconds would collect them.
struct Place {
    path: PathBuf,
}

impl Place {
    fn make(bundle: &Bundle, request: &ExecRequest) -> Result<Self, ContainerError> {
        let own = std::process::id();
        let place = Self {
            path: bundle.own().join(format!("exec-{own}")),
        };
        let state = place.path.join(&request.id);
        fs::create_dir_all(&state).map_err(io("create", &state))?;
        let from = bundle.state().join(&request.id);
        for entry in fs::read_dir(&from).map_err(io("read", &from))? {
            let entry = entry.map_err(io("read", &from))?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::copy(entry.path(), state.join(entry.file_name()))
                    .map_err(io("copy", &entry.path()))?;
            }
        }
        mark_running(&state.join("state.json"))?;
        let process = serde_json::to_vec(&request.process)
            .map_err(|e| ContainerError::Init(format!("encode the process: {e}")))?;
        fs::write(place.process(), process).map_err(io("write", &place.process()))?;
        Ok(place)
    }

    fn process(&self) -> PathBuf {
        self.path.join("process.json")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// libcontainer executes in running containers only; containerd, which knows
/// better than the file whether it runs, also in created ones.
fn mark_running(path: &Path) -> Result<(), ContainerError> {
    let text = fs::read(path).map_err(io("read", path))?;
    let mut state: Value = serde_json::from_slice(&text)
        .map_err(|e| ContainerError::Init(format!("{}: {e}", path.display())))?;
    state["status"] = "running".into();
    fs::write(path, state.to_string()).map_err(io("write", path))
}

fn io<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl Fn(std::io::Error) -> ContainerError + use<'a> {
    move |source| ContainerError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
