use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};
use wasmtime_wasi_config::WasiConfigVariables;
use wisp_capability::{Clocks, Grant};

use crate::clocks::{CoarseMonotonic, CoarseWall};
use crate::config;
use crate::http::{Client, CpuLimit};
use crate::ledger::Ledger;
use crate::memory::Budget;
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
    /// The file that says what the container's memory limit is by now: of
    /// cgroup v1 `memory.limit_in_bytes`, of v2 `memory.max`. Without it, what
    /// the grant says stays.
    pub memory_limit: Option<File>,
    /// What the container's guests have of it by now.
    pub ledger: Ledger,
    /// The files that say what the container's limit of processor time is by
    /// now; only servers have a use for them.
    pub cpu_limit: CpuLimit,
    /// A directory whose files are values of `wasi:config`.
    pub config: Option<PathBuf>,
    pub ready: Ready,
}

/// What every instance of the guest finds: the same for a command's only one
/// and for each request's.
pub(crate) struct Surroundings {
    grant: Grant,
    /// What it finds open: opened once, for all instances.
    pub files: WasiFilesystemCtx,
    pub stdout: Output,
    stderr: Output,
    pub network: Arc<Network>,
    pub client: Arc<Client>,
    pub budget: Arc<Budget>,
    pub config: Arc<WasiConfigVariables>,
}

impl Surroundings {
    /// # Errors
    /// What of it cannot be had.
    pub fn new(
        grant: Grant,
        preopens: Vec<HostPreopen>,
        memory_limit: Option<File>,
        ledger: Ledger,
        config: Option<PathBuf>,
    ) -> Result<Self, String> {
        let values = config::read(&grant.config, config.as_deref())?;
        let streams = |error: std::io::Error| format!("standard streams: {error}");
        let network = Arc::new(Network::new(&grant));
        Ok(Self {
            client: Arc::new(Client::new(&grant, &preopens, network.clone())),
            network,
            config: Arc::new(values.into_iter().collect()),
            budget: Budget::new(grant.limits, memory_limit, ledger),
            files: open(&preopens)?,
            grant,
            stdout: Output::stdout().map_err(streams)?,
            stderr: Output::stderr().map_err(streams)?,
        })
    }

    /// The guest's environment.
    pub fn env(&self) -> &[(String, String)] {
        &self.grant.env
    }

    /// What the guest is called as, which is never empty.
    pub fn program(&self) -> &str {
        self.grant.args.first().map_or("", String::as_str)
    }

    /// How many resources one instance may hold.
    pub fn resources(&self) -> usize {
        usize::try_from(self.grant.limits.resources()).unwrap_or(usize::MAX)
    }

    /// How many calls of 0.3 one instance may have under way.
    pub fn calls(&self) -> usize {
        usize::try_from(self.grant.limits.calls()).unwrap_or(usize::MAX)
    }

    /// The context of one instance, without its files.
    pub fn wasi(&self) -> WasiCtxBuilder {
        let mut wasi = WasiCtxBuilder::new();
        wasi.inherit_stdin()
            .stdout(self.stdout.clone())
            .stderr(self.stderr.clone())
            .args(&self.grant.args)
            .envs(&self.grant.env)
            .initial_cwd(&self.grant.cwd)
            .max_random_size(self.grant.limits.hostcall());
        if self.grant.clocks == Clocks::Coarse {
            wasi.wall_clock(CoarseWall)
                .monotonic_clock(CoarseMonotonic::new());
        }
        if let Some(seed) = self.grant.seed {
            wasi.secure_random(StdRng::seed_from_u64(seed))
                .insecure_random(StdRng::seed_from_u64(!seed))
                .insecure_random_seed(u128::from(seed));
        }
        self.network.apply(&mut wasi);
        wasi
    }
}

/// Opens `preopens`.
///
/// # Errors
/// One that cannot be opened, named.
fn open(preopens: &[HostPreopen]) -> Result<WasiFilesystemCtx, String> {
    let mut wasi = WasiCtxBuilder::new();
    // The process has nothing to do but run the guest: what blocks the guest may
    // block the thread, and no other thread is needed.
    wasi.allow_blocking_current_thread(true);
    for preopen in preopens {
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
    Ok(wasi.build().filesystem().clone())
}
