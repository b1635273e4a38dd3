//! What the program is told: by flags, or by the environment, as manifests do it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::enter::Enter;

/// Keeps wisp installed on a node of Kubernetes
#[derive(Debug, Parser)]
#[command(name = "wisp-node-installer", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Install wisp on this node, keep it so, and report; what the DaemonSet's pods do
    Run(Box<Run>),
    /// Delete the DaemonSet and wait until its pods have left their nodes
    Retire(Retire),
    /// Become a program of the node
    Enter(Enter),
}

#[derive(Debug, Args)]
pub struct Run {
    /// Whether wisp is to be on the node, or to be taken away
    #[arg(long, env = "WISP_MODE", value_enum, default_value_t = Mode::Install)]
    pub mode: Mode,
    /// What happens when this program is told to end
    #[arg(long, env = "WISP_ON_STOP", value_enum, default_value_t = OnStop::Auto)]
    pub on_stop: OnStop,
    /// Where the node's root directory is mounted
    #[arg(long, env = "WISP_HOST", value_name = "DIR", default_value = "/host")]
    pub host: PathBuf,
    /// Where the programs to be installed are [default: where this one is]
    #[arg(long, env = "WISP_FROM", value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// The node's name
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,
    /// Where probes and Prometheus ask
    #[arg(
        long,
        env = "WISP_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9913"
    )]
    pub listen: SocketAddr,
    /// How many seconds lie between two looks at the node
    #[arg(long, env = "WISP_INTERVAL", value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub interval: u64,
    /// How many seconds to wait for pods of wisp that still run before it is removed
    #[arg(long, env = "WISP_WAIT", value_name = "SECONDS", default_value_t = 60)]
    pub wait: u64,
    #[command(flatten)]
    pub there: There,
    #[command(flatten)]
    pub daemon_set: DaemonSet,
    #[command(flatten)]
    pub kubernetes: Kubernetes,
}

/// Where things are on the node; see `wisp node install --help`.
#[derive(Debug, Args)]
pub struct There {
    /// containerd's socket on the node [default: found]
    #[arg(long, env = "WISP_ADDRESS", value_name = "PATH")]
    pub address: Option<PathBuf>,
    /// The node's command that restarts containerd [default: systemd's restart of
    /// its unit]
    #[arg(long, env = "WISP_RESTART", value_name = "COMMAND")]
    pub restart: Option<String>,
    /// The node's directory for the programs [default: found]
    #[arg(long, env = "WISP_PROGRAMS", value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// The node's directory of what is written down
    #[arg(long, env = "WISP_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// The DaemonSet that this program belongs to.
#[derive(Debug, Clone, Args)]
pub struct DaemonSet {
    /// The DaemonSet's name; without it the program cannot know that it was deleted
    #[arg(long, env = "WISP_DAEMONSET", value_name = "NAME")]
    pub daemonset: Option<String>,
    /// The DaemonSet's namespace
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        default_value = "wisp-system"
    )]
    pub namespace: String,
}

/// The API server, as a pod has it.
#[derive(Debug, Args)]
pub struct Kubernetes {
    /// The API server [default: the cluster's, from the pod's environment]
    #[arg(long, env = "WISP_KUBERNETES", value_name = "URL")]
    pub kubernetes: Option<String>,
    /// The directory with `token` and `ca.crt`
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub credentials: PathBuf,
}

#[derive(Debug, Args)]
pub struct Retire {
    #[command(flatten)]
    pub daemon_set: DaemonSet,
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    /// How many seconds the pods may take
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    pub timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Install,
    Uninstall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// Uninstall if the DaemonSet is deleted; an update or a drain leaves everything
    Auto,
    /// Leave everything
    Keep,
    /// Uninstall
    Uninstall,
}
