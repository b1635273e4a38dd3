//! A further guest in a Wasm container.

use std::path::Path;

use oci_spec::runtime::Spec;
use wisp_capability::Grant;
use wisp_config::Config;
use wisp_image::Program;

use crate::control::{Control, ExecRequest};
use crate::error::ContainerError;
use crate::init::code::{self, Code, Root};
use crate::init::{jail, wasm};

/// A guest that is mapped and linked, with what it may do.
pub struct Guest {
    code: Code,
    grant: Grant,
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
        control: &Control,
    ) -> Result<Self, ContainerError> {
        let volumes: Vec<_> = jail::volumes(spec)
            .into_iter()
            .map(|(volume, _)| volume)
            .collect();
        let grant = wasm::capabilities(spec, &volumes)?;
        let config = Config::load(request.config.as_deref())?;
        // Through volumes, a name says nothing about what is behind it, so the
        // file itself is read.
        let root = Root {
            path: Path::new(jail::ROOTFS),
            mounts: &[],
        };
        let code = code::load(program, &root, &config, control)?;
        Ok(Self { code, grant })
    }

    /// Runs it to its end, in the jail; answers its exit code.
    pub fn run(self, control: &Control) -> i32 {
        let Code { prepared, artifact } = self.code;
        let code = prepared.run(wasm::setup(self.grant, control));
        drop(artifact);
        code
    }
}
