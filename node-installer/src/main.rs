//! `wisp-node-installer`: keeps wisp installed on the node of its pod, and says
//! so to Kubernetes.
//!
//! A thin program: what is done to the node is done by `wisp node`, run with the
//! node's root directory as its own. Here are only the times at which that is
//! done, and what becomes of the answer: a label, an annotation and an event of
//! the Node object, and what probes and Prometheus ask for.
#![forbid(unsafe_code)]

mod args;
mod enter;
mod host;
mod keep;
mod kubernetes;
mod node;
mod remove;
mod retire;
mod server;
mod state;
mod stop;
mod time;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;

use self::args::{Action, Cli, Mode, Run};
use self::host::Host;
use self::kubernetes::Api;
use self::node::Node;
use self::state::Shared;
use self::stop::Stop;

fn main() -> ExitCode {
    let result = match Cli::parse().action {
        // Before there is any thread: it becomes another program.
        Action::Enter(enter) => enter.run(),
        Action::Run(args) => wait(run(&args)),
        Action::Retire(args) => wait(retire::run(&args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn wait(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start")?
        .block_on(work)
}

async fn run(args: &Run) -> Result<()> {
    let api = Api::new(&args.kubernetes)?;
    let host = Host::new(args)?;
    let shared = Arc::new(Shared::default());
    let stop = Stop::listen()?;
    server::listen(args.listen, Arc::clone(&shared)).await?;
    let node = Node::new(&api, &args.node);
    match args.mode {
        Mode::Install => keep::run(args, &host, &node, &shared, stop).await,
        Mode::Uninstall => remove::run(&host, &node, &shared, stop).await,
    }
}

/// A line of the log.
fn say(text: &str) {
    // Nobody reads: that is no reason to stop halfway.
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{text}\n"));
}
