//! The exec role: adds a process to a container that is there.
//!
//! In a native container libcontainer's tenant does it. In a Wasm container it
//! is done here: the process joins by what the kernel says of the container's
//! first process, and becomes a further guest, or a native program with the
//! image as its root.

mod choice;
mod guest;
mod join;
mod program;
mod tenant;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use oci_spec::runtime::{Process, Spec};
use seccompiler::BpfProgram;

use self::choice::Choice;
use self::guest::Guest;
use self::join::Forked;
use self::program::Native;
use super::{
    calls, close_on_exec, confine, descriptors, groups, landlock, load_spec, take_control,
    take_ledger, terminal,
};
use crate::bundle::Bundle;
use crate::control::{Control, ExecRequest, ProgramKind, Report};
use crate::error::ContainerError;
use crate::seccomp;

/// The exit code for what cannot be found, as shells have it.
const NOT_FOUND: i32 = 127;

/// Runs the exec role with the control socket that the daemon passed as
/// descriptor `fd`; answers the exit code of the process.
///
/// # Errors
/// When `fd` is not a socket or carries no request: nobody to report to.
pub fn main(fd: RawFd) -> Result<i32, String> {
    let control = take_control(fd)?;
    let request: ExecRequest = control.request().map_err(|e| format!("request: {e}"))?;
    close_on_exec(request.pidfd).map_err(|e| format!("pidfd: {e}"))?;
    // SAFETY: the daemon passed this descriptor to this process alone, it is
    // open (checked just above), and nothing else here uses its number.
    let first = unsafe { OwnedFd::from_raw_fd(request.pidfd) };
    match add(&request, first, &control) {
        Ok(code) => Ok(code),
        Err(error) => {
            control.report(&Report::Failed(error.to_string()));
            Ok(1)
        }
    }
}

fn add(request: &ExecRequest, first: OwnedFd, control: &Control) -> Result<i32, ContainerError> {
    let ledger = take_ledger(request.ledger, request.place)?;
    let bundle = Bundle::new(&request.bundle);
    let mut spec = load_spec(&bundle.config())?;
    let own = spec.process().clone().unwrap_or_default();
    spec.set_process(Some(request.process.clone()));
    if request.kind == ProgramKind::Native {
        let pid = tenant::add(request, &bundle, &spec, control)?;
        control.report(&Report::Added(pid));
        return Ok(0);
    }
    let body = match choice::choose(request, &own, first.as_fd())? {
        Choice::Wasm(program) => {
            let guest = Guest::prepare(&spec, program, request, ledger, control)?;
            Body::Guest(Box::new(guest))
        }
        Choice::Native => Body::Native(Native::prepare(&request.process)?),
        Choice::Nothing(reason) => return nothing(request, control, &reason),
    };
    let filters = seccomp::of(&spec)?;
    // What is open now, the new process needs.
    let mut keep = descriptors::open()
        .map_err(|e| ContainerError::Init(format!("list open descriptors: {e}")))?;
    keep.retain(|fd| *fd != first.as_raw_fd());
    if request.process.terminal() == Some(true) {
        terminal::open(&request.process, control)?;
    }

    groups::take(&spec)?;
    confine::limits(&request.process)?;
    let namespaces = join::Namespaces::of(request.pid)?;
    if join::fork(namespaces, first.as_fd(), control)? == Forked::Parent {
        return Ok(0);
    }
    // Only now, so that nothing else is ever seen among the container's processes.
    let lived = request
        .cgroup
        .add_own()
        .and_then(|()| namespaces.enter(first.as_fd()))
        .and_then(|()| body.run(&spec, &keep, &filters, control));
    // Nothing returns from here: descriptors that are owned above are closed.
    std::process::exit(match lived {
        Ok(code) => code,
        Err(error) => {
            control.report(&Report::Failed(error.to_string()));
            1
        }
    })
}

/// Stands in for a process that cannot be: as with a shell, it is one that says
/// so and ends.
fn nothing(request: &ExecRequest, control: &Control, reason: &str) -> Result<i32, ContainerError> {
    if request.process.terminal() == Some(true) {
        terminal::open(&request.process, control)?;
    }
    let own = i32::try_from(std::process::id())
        .map_err(|e| ContainerError::Init(format!("own pid: {e}")))?;
    control.report(&Report::Added(own));
    control.report(&Report::Ready);
    eprintln!("wisp: {reason}");
    Ok(NOT_FOUND)
}

/// What the new process becomes.
enum Body {
    Guest(Box<Guest>),
    Native(Native),
}

impl Body {
    /// Becomes it: in the container's namespaces, in a process of its own.
    fn run(
        self,
        spec: &Spec,
        keep: &[RawFd],
        filters: &[BpfProgram],
        control: &Control,
    ) -> Result<i32, ContainerError> {
        terminal::control();
        let mut process = spec.process().clone().unwrap_or_default();
        match &self {
            Self::Guest(_) => process = guests(process),
            Self::Native(_) => program::enter_image(spec)?,
        }
        descriptors::close_all_but(keep)
            .map_err(|e| ContainerError::Init(format!("close inherited descriptors: {e}")))?;
        match self {
            Self::Guest(guest) => {
                confine::user(&process)?;
                confine::undumpable()?;
                landlock::leave_files()?;
                calls::leave(guest.needs())?;
                seccomp::install(filters)?;
                Ok(guest.run(control))
            }
            Self::Native(native) => {
                native.go_to_cwd(&process)?;
                confine::user(&process)?;
                seccomp::install(filters)?;
                native.run().map(|never| match never {})
            }
        }
    }
}

/// A guest calls nothing that any capability would allow.
fn guests(mut process: Process) -> Process {
    process.set_no_new_privileges(Some(true));
    process.set_capabilities(Some(confine::no_capabilities()));
    process
}
