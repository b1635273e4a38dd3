//! A further guest in a Wasm container.

use std::fs::File;
use std::path::Path;

use oci_spec::runtime::Spec;
use wisp_capability::Grant;
use wisp_engine::ledger::Ledger;
use wisp_engine::{CpuLimit, World};
use wisp_image::Program;

use crate::bundle::Bundle;
use crate::control::{Control, ExecRequest};
use crate::error::ContainerError;
use crate::init::calls::Needs;
use crate::init::code::{self, Code, Root};
use crate::init::{jail, settings, wasm};

/// A guest that is mapped and linked, with what it may do.
pub struct Guest {
    code: Code,
    grant: Grant,
    memory_limit: Option<File>,
    ledger: Ledger,
    cpu_limit: CpuLimit,
}

impl Guest {
    /// Maps and links `program`, and computes what it may do: what the
    /// container's spec and annotations grant, with the arguments, environment
    /// and working directory of the exec, which `spec` has as its process.
    ///
    /// # Errors
    /// Whatever keeps the program from running, named.
    pub fn prepare(
        spec: &Spec,
        program: Program,
        request: &ExecRequest,
        ledger: Ledger,
        control: &Control,
    ) -> Result<Self, ContainerError> {
        let volumes: Vec<_> = jail::volumes(spec)
            .into_iter()
            .map(|(volume, _)| volume)
            .collect();
        let config = settings::kept(&Bundle::new(&request.bundle))?;
        let grant = wasm::capabilities(spec, &request.namespace, &config, &volumes)?;
        // Through volumes, a name says nothing about what is behind it, so the
        // file itself is read.
        let root = Root {
            path: Path::new(jail::ROOTFS),
            mounts: &[],
        };
        let code = code::load(program, &root, &config, &grant, control)?;
        let cpu_limit = match code.prepared.world() {
            World::Http(_) => request.cgroup.cpu_limit().files(),
            World::Command(_) => CpuLimit::default(),
        };
        Ok(Self {
            code,
            grant,
            memory_limit: request.cgroup.memory_limit().file(),
            ledger,
            cpu_limit,
        })
    }

    /// What system calls it takes.
    pub fn needs(&self) -> Needs {
        Needs::of(&self.grant, self.code.prepared.world())
    }

    /// Runs it to its end, in the jail; answers its exit code.
    pub fn run(self, control: &Control) -> i32 {
        let Code { prepared, artifact } = self.code;
        let code = prepared.run(wasm::setup(
            self.grant,
            self.memory_limit,
            self.ledger,
            self.cpu_limit,
            control,
        ));
        drop(artifact);
        code
    }
}
