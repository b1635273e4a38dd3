//! Ordinary Linux programs: pause, sidecars, busybox.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use oci_spec::runtime::Spec;
use seccompiler::BpfProgram;

use super::streams::Streams;
use super::terminal;
use crate::control::{Control, Report};
use crate::error::ContainerError;
use crate::seccomp;

/// libcontainer's own executor, with the spec's seccomp profile and with the
/// reason reported when the program cannot be executed.
#[derive(Clone)]
pub struct Native {
    filters: Rc<Vec<BpfProgram>>,
    control: Control,
    /// None if libcontainer makes a terminal in their place.
    streams: Option<Rc<Streams>>,
}

impl Native {
    /// # Errors
    /// When descriptors run out.
    pub fn new(
        filters: Vec<BpfProgram>,
        control: &Control,
        terminal: bool,
    ) -> Result<Self, ContainerError> {
        Ok(Self {
            filters: Rc::new(filters),
            control: control.clone(),
            streams: match terminal {
                true => None,
                false => Some(Rc::new(Streams::save()?)),
            },
        })
    }
}

/// The spec for libcontainer: as containerd wrote it, with the root's path
/// made absolute, since libcontainer sees it from another bundle.
pub fn spec(spec: &Spec, root: &Path) -> Spec {
    let mut spec = spec.clone();
    if let Some(found) = spec.root_mut() {
        found.set_path(root.to_owned());
    }
    spec
}

impl Executor for Native {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let streams = match &self.streams {
            Some(streams) => streams.restore(),
            None => {
                let process = spec.process().clone().unwrap_or_default();
                terminal::set_size(&process, std::io::stdin())
            }
        };
        let result = streams
            .and_then(|()| seccomp::install(&self.filters))
            .map_err(|e| ExecutorError::Other(e.to_string()))
            .and_then(|()| DefaultExecutor {}.exec(spec));
        if let Err(error) = &result {
            self.control.report(&Report::Failed(error.to_string()));
        }
        result
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }

    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        DefaultExecutor {}.setup_envs(envs)
    }
}
