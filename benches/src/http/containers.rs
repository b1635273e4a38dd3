//! Servers in containers, as users run them.

use crate::api::{Api, Prepared};
use crate::contestants::{Contestant, Form};
use crate::http::cores::{self, Cores};
use crate::images::Images;
use crate::node::Node;
use anyhow::{Context, Result};
use std::path::Path;
use tokio::runtime::Runtime;
use wisp_tests::Version;

/// A containerd on the servers' processors: what it starts stays there, and sees
/// no others.
#[derive(Debug)]
pub struct Containers {
    node: Node,
    runtime: Runtime,
    api: Api,
}

/// A container that runs. Dropping it removes it.
#[derive(Debug)]
pub struct Container<'a> {
    of: &'a Containers,
    prepared: Prepared,
    pub pid: i32,
}

impl Containers {
    /// Starts a containerd on the servers' processors.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(version: Version, cores: &Cores) -> Result<Self> {
        let node = cores::on(&cores.server, || Node::start(version))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let api = runtime.block_on(Api::connect(&node))?;
        Ok(Self { node, runtime, api })
    }

    /// Makes images of a component, in these forms; `binaries` has the `wisp` that
    /// packs them.
    ///
    /// # Errors
    /// What `wisp pack` or `ctr` said.
    pub fn import(
        &self,
        binaries: &Path,
        name: &str,
        program: &Path,
        forms: &[Form],
    ) -> Result<()> {
        let images = Images::new(&self.node, binaries);
        for form in forms {
            images.wasm(name, program, *form)?;
        }
        Ok(())
    }

    /// Runs a container of the program's image in the host's network.
    ///
    /// # Errors
    /// containerd's, which has the shim's reason.
    pub fn run(
        &self,
        contestant: &Contestant,
        program: &str,
        variables: &[String],
        annotations: &[String],
    ) -> Result<Container<'_>> {
        let mut flags = vec!["--net-host"];
        for variable in variables {
            flags.extend(["--env", variable]);
        }
        for annotation in annotations {
            flags.extend(["--annotation", annotation]);
        }
        let template = self
            .api
            .template_with(&self.node, contestant, program, &flags, &[]);
        let template = self.runtime.block_on(template)?;
        let prepared = self.runtime.block_on(self.api.prepare(&template))?;
        let mut container = Container {
            of: self,
            prepared,
            pid: 0,
        };
        let id = &container.prepared.id;
        let pid = self.runtime.block_on(async {
            self.api.create(&container.prepared, "", "").await?;
            self.api.start(id).await
        });
        container.pid = i32::try_from(pid.with_context(|| self.node.last_words())?)?;
        Ok(container)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let clear = self.of.api.clear(&self.prepared);
        self.of.runtime.block_on(clear);
    }
}
