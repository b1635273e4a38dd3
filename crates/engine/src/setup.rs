use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wasmtime_wasi::{FsPerms, WasiCtxBuilder};
use wisp_capability::Grant;

use crate::network::Network;
use crate::stdio::Output;

/// A directory that the guest finds open.
#[derive(Debug, Clone)]
pub struct HostPreopen {
    /// Where it is for this process.
    pub host: PathBuf,
    /// Its path as the guest sees it.
    pub guest: String,
    /// Whether WASI lets the guest write; the mounts beneath have their say.
    pub writable: bool,
}

/// Hears once how the start went: for a command just before the guest's first
/// instruction, for an HTTP server when the port listens, or why not.
pub type Ready = Box<dyn FnOnce(Result<(), String>)>;

/// What a run needs besides the code.
pub struct Setup {
    pub grant: Grant,
    pub preopens: Vec<HostPreopen>,
    pub ready: Ready,
    /// How long an HTTP server may take to answer what it has begun once it is
    /// asked to stop.
    pub grace: Duration,
}

/// What every instance of the guest finds: the same for a command's only one
/// and for each request's.
pub(crate) struct Surroundings {
    grant: Grant,
    preopens: Vec<HostPreopen>,
    stdout: Output,
    stderr: Output,
    pub network: Arc<Network>,
}

impl Surroundings {
    pub fn new(grant: Grant, preopens: Vec<HostPreopen>) -> std::io::Result<Self> {
        Ok(Self {
            network: Arc::new(Network::new(&grant)),
            grant,
            preopens,
            stdout: Output::stdout()?,
            stderr: Output::stderr()?,
        })
    }

    /// The context of one instance.
    ///
    /// # Errors
    /// A preopen that cannot be opened, named.
    pub fn wasi(&self) -> Result<WasiCtxBuilder, String> {
        let mut wasi = WasiCtxBuilder::new();
        // The process has nothing to do but run the guest: what blocks the
        // guest may block the thread, and no other thread is needed.
        wasi.allow_blocking_current_thread(true)
            .inherit_stdin()
            .stdout(self.stdout.clone())
            .stderr(self.stderr.clone())
            .args(&self.grant.args)
            .envs(&self.grant.env)
            .initial_cwd(&self.grant.cwd);
        for preopen in &self.preopens {
            let permissions = if preopen.writable {
                FsPerms::ReadWrite
            } else {
                FsPerms::ReadOnly
            };
            wasi.preopened_dir(&preopen.host, &preopen.guest, permissions)
                .map_err(|error| {
                    format!(
                        "open {} for the guest's {}: {error:#}",
                        preopen.host.display(),
                        preopen.guest
                    )
                })?;
        }
        self.network.apply(&mut wasi);
        Ok(wasi)
    }
}
