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
/// made absolute, since libcontainer sees it from another bundle. A processor
/// time of 0 is none, as runc has it; libcontainer would write the 0.
pub fn spec(spec: &Spec, root: &Path) -> Spec {
    let mut spec = spec.clone();
    if let Some(found) = spec.root_mut() {
        found.set_path(root.to_owned());
    }
    let resources = spec.linux_mut().as_mut().map(|linux| linux.resources_mut());
    if let Some(Some(resources)) = resources
        && let Some(cpu) = resources.cpu_mut()
    {
        cpu.set_period(cpu.period().filter(|period| *period > 0));
        cpu.set_quota(cpu.quota().filter(|quota| *quota != 0));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_processor_time_is_no_limit() {
        let given = |cpu: &str| {
            let given: Spec = serde_json::from_str(&format!(
                r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},
                    "linux":{{"resources":{{"cpu":{cpu}}}}}}}"#
            ))
            .expect("spec");
            let derived = spec(&given, Path::new("/root"));
            let linux = derived.linux().as_ref().expect("linux");
            let resources = linux.resources().as_ref().expect("resources");
            let cpu = resources.cpu().as_ref().expect("cpu");
            (cpu.quota(), cpu.period())
        };
        assert_eq!(given(r#"{"quota":50000,"period":0}"#), (Some(50_000), None));
        assert_eq!(
            given(r#"{"quota":0,"period":100000}"#),
            (None, Some(100_000))
        );
        assert_eq!(given(r#"{"quota":-1}"#), (Some(-1), None));
    }
}
