//! `wisp doctor`: looks at a node and says what to do about what it finds.

mod cache;
mod client;
mod hello;
mod report;
mod trial;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use nix::unistd::geteuid;
use wisp_config::{Config, DEFAULT_PATH};
use wisp_node::cgroups::Cgroups;
use wisp_node::checks;
use wisp_node::kernel::Kernel;
use wisp_node::kubelet::{self, Kubelet};
use wisp_node::settings::Runtime;
use wisp_node::{Containerd, Daemon, Finding, Settings, Status};

pub use self::client::Client;
pub use self::trial::Trial;

const EXAMPLES: &str = "\
Examples:
  wisp doctor
  wisp doctor --no-run --json
  wisp doctor --address /run/k3s/containerd/containerd.sock

The exit code is 0 if nothing has failed, warnings or not, else 1.";

/// Check this node, and say what to do about what is not well
///
/// Looks at the kernel, cgroups, containerd and its configuration, the shim,
/// wisp's settings and its cache. As root it also runs a tiny program through
/// containerd, in the namespace wisp-doctor, and removes all of it again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Doctor {
    /// containerd's gRPC socket [default: /run/containerd/containerd.sock, or
    /// what CONTAINERD_ADDRESS says, or where k3s, k0s or MicroK8s have it]
    #[arg(short, long, value_name = "PATH")]
    address: Option<PathBuf>,
    /// wisp's settings [default: what containerd tells the shim, else
    /// /etc/wisp/config.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// kubelet's configuration
    #[arg(long, value_name = "FILE", default_value = kubelet::CONFIG)]
    kubelet_config: PathBuf,
    /// Run a program through containerd, root or not
    #[arg(long, conflicts_with = "no_run")]
    run: bool,
    /// Only look
    #[arg(long)]
    no_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Looks at everything and says how it stands.
    ///
    /// # Errors
    /// When the report cannot be printed.
    pub fn run(&self) -> Result<ExitCode> {
        let findings = self.findings();
        if self.json {
            report::json(&findings)?;
        } else {
            report::text(&findings, io::stdout().is_terminal())?;
        }
        let failed = findings
            .iter()
            .any(|finding| finding.status == Status::Failed);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn findings(&self) -> Vec<Finding> {
        let cgroups = Cgroups::find();
        let mut all = checks::kernel(&Kernel::probe());
        all.push(checks::cgroups(&cgroups));

        let socket = self.socket();
        let containerd = match Containerd::at(&socket) {
            Ok(containerd) => Some(containerd),
            Err(error) => {
                all.push(checks::unreachable(&socket, &error));
                None
            }
        };
        let answers = containerd.as_ref().is_some_and(|containerd| {
            let version = Client::connect(&socket, "").and_then(|client| client.version());
            all.push(checks::containerd(
                containerd,
                version.as_deref().map_err(String::as_str),
            ));
            version.is_ok()
        });
        let daemon = containerd
            .as_ref()
            .and_then(|containerd| containerd.daemon.as_ref());
        let settings = daemon.and_then(|daemon| self.configuration(daemon, &cgroups, &mut all));
        if containerd.is_some() && daemon.is_none() {
            all.push(Finding::warning(
                "configuration",
                "containerd's process cannot be looked at, so neither can its configuration",
                "run `wisp doctor` as root, in the node's own process namespace",
            ));
        }
        let runtime = settings
            .as_ref()
            .and_then(|settings| settings.cri.as_ref())
            .and_then(|cri| Some(cri.wisp().first()?.1));
        let shim = checks::shim(daemon, runtime, env!("CARGO_PKG_VERSION"));
        let found = shim.status == Status::Ok;
        all.push(shim);

        let named = self.settings(daemon, runtime);
        match load(named.as_deref()) {
            Ok((config, from)) => {
                all.push(Finding::ok("settings", from));
                all.extend(cache::check(&config));
            }
            Err(reason) => all.push(Finding::failed(
                "settings",
                reason,
                "correct the file: with it no container is created (docs/guide.md, \"Settings\")",
            )),
        }
        if self.no_run || !(self.run || geteuid().is_root()) {
            return all;
        }
        // What is bound to fail has been said.
        if answers && found {
            let trial = Trial {
                socket: &socket,
                runtime,
                snapshotter: settings
                    .as_ref()
                    .and_then(|settings| settings.cri.as_ref())
                    .map_or("overlayfs", |cri| &cri.snapshotter),
            };
            all.push(trial.check());
        } else {
            all.push(Finding::warning(
                "hello",
                "not run: containerd or the shim is not there",
                "see above",
            ));
        }
        all
    }

    fn socket(&self) -> PathBuf {
        self.address
            .clone()
            .or_else(|| crate::cache::variable("CONTAINERD_ADDRESS").map(PathBuf::from))
            .unwrap_or_else(wisp_node::containerd::usual_socket)
    }

    /// What containerd is told, and what is to be said of that.
    fn configuration(
        &self,
        daemon: &Daemon,
        cgroups: &Cgroups,
        all: &mut Vec<Finding>,
    ) -> Option<Settings> {
        let settings = match daemon.settings() {
            Ok(settings) => settings,
            Err(reason) => {
                all.push(Finding::warning(
                    "configuration",
                    format!("it cannot be told: {reason}"),
                    "see whether `containerd config dump` works",
                ));
                return None;
            }
        };
        all.extend(checks::configuration(daemon, &settings));
        if let Some(kubelet) = Kubelet::read(&self.kubelet_config) {
            all.extend(checks::cgroup_driver(&kubelet, &settings, cgroups));
        }
        Some(settings)
    }

    /// The file that the shim reads its settings from.
    fn settings(&self, daemon: Option<&Daemon>, runtime: Option<&Runtime>) -> Option<PathBuf> {
        let told = runtime
            .map(|runtime| runtime.options.config_path.as_str())
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        self.config
            .clone()
            .or(told)
            .or_else(|| daemon?.settings.clone())
    }
}

/// The settings, and where they are from.
fn load(named: Option<&Path>) -> Result<(Config, String), String> {
    let default = Path::new(DEFAULT_PATH);
    let Some(path) = named.or_else(|| default.exists().then_some(default)) else {
        let text = format!("{DEFAULT_PATH} is not there: everything has its default");
        return Ok((Config::default(), text));
    };
    let config = Config::load(Some(path)).map_err(|error| error.to_string())?;
    Ok((config, format!("{} is valid", path.display())))
}
