//! The spec's hooks for containers that libcontainer does not create (runtime
//! spec, `hooks`). They are the node's own programs, named by whoever made the
//! container, and run with the node's view of the file system.

use libcontainer::container::{ContainerStatus, State};
use libcontainer::hooks::run_hooks;
use oci_spec::runtime::{Hook, Hooks, Spec};

use crate::bundle::Bundle;
use crate::error::{ContainerError, chain};

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In the runtime's namespaces, before the root is changed; also the older
    /// `prestart`.
    CreateRuntime,
    /// In the container's namespaces, before the root is changed.
    CreateContainer,
    /// After the program was started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

impl Moment {
    fn of(self, hooks: &Hooks) -> Vec<Hook> {
        #[allow(deprecated)]
        let (first, second) = match self {
            Self::CreateRuntime => (hooks.prestart(), hooks.create_runtime()),
            Self::CreateContainer => (hooks.create_container(), &None),
            Self::Poststart => (hooks.poststart(), &None),
            Self::Poststop => (hooks.poststop(), &None),
        };
        first.iter().chain(second).flatten().cloned().collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    fn status(self) -> ContainerStatus {
        match self {
            Self::CreateRuntime | Self::CreateContainer => ContainerStatus::Creating,
            Self::Poststart => ContainerStatus::Running,
            Self::Poststop => ContainerStatus::Stopped,
        }
    }
}

/// Whether `spec` has a hook for `moment`.
pub fn any(spec: &Spec, moment: Moment) -> bool {
    spec.hooks()
        .as_ref()
        .is_some_and(|hooks| !moment.of(hooks).is_empty())
}

/// Refuses a spec whose hooks want to run where only a guest is.
///
/// # Errors
/// For a `startContainer` hook: there is no `execve` that it could precede.
pub fn check(spec: &Spec) -> Result<(), ContainerError> {
    match spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.start_container().as_ref())
    {
        Some(hooks) if !hooks.is_empty() => Err(ContainerError::Unsupported(
            "hooks.startContainer: runs in the container's root, where a Wasm container has \
             nothing that could run it"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// Runs the hooks of `spec` for `moment`, one after the other, each with the
/// container's state on stdin.
///
/// # Errors
/// The first hook that fails.
pub fn run(
    spec: &Spec,
    moment: Moment,
    id: &str,
    pid: Option<i32>,
    bundle: &Bundle,
) -> Result<(), ContainerError> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let hooks = moment.of(hooks);
    if hooks.is_empty() {
        return Ok(());
    }
    let mut state = State::new(id, moment.status(), pid, bundle.path().to_owned());
    state.annotations = spec.annotations().clone();
    run_hooks(Some(&hooks), Some(&state), Some(bundle.path()), None, None).map_err(|error| {
        ContainerError::Unsupported(format!("hooks.{}: {}", moment.name(), chain(&error)))
    })
}
