//! `wisp node`: brings wisp to this node and takes it away again.

mod cri;
mod machine;

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use wisp_install::{Found, InstallError, Offline, Place, State, Step, Watch};
use wisp_node::Containerd;

use self::machine::Machine;

/// Where what was installed is written down.
const STATE: &str = "/var/lib/wisp/install";

const EXAMPLES: &str = "\
Examples:
  wisp node install
  wisp node status --json
  wisp node uninstall --wait 300

containerd itself reads each new configuration before it takes the old one's
place, and it must mean the same as before but for the runtime wisp.";

/// Bring wisp to this node, or take it away
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub struct Node {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Copy the programs, tell containerd of the runtime, prove that it works
    Install(Install),
    /// Take away what `install` brought, and nothing else
    Uninstall(Uninstall),
    /// Say what is installed and who uses it
    Status(Status),
    /// Prove that what is installed works
    Verify(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// containerd's gRPC socket [default: /run/containerd/containerd.sock, or
    /// where k3s, k0s or MicroK8s have it]
    #[arg(short, long, value_name = "PATH")]
    address: Option<PathBuf>,
    /// The command that restarts containerd [default: systemd restarts the unit
    /// that containerd's process is of]
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    /// Where what was installed is written down
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
}

#[derive(Debug, Args)]
struct Install {
    #[command(flatten)]
    common: Common,
    /// Where the two programs are [default: where this one is]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Where they go [default: the first of /opt/wisp, /usr/local/lib/wisp and
    /// /var/lib/wisp/programs that can be written to and run from]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Uninstall {
    #[command(flatten)]
    common: Common,
    /// How many seconds to wait for containers that still run
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Where containerd does not come up: put its configuration back without asking
    /// it
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    common: Common,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Node {
    /// Does it, with a line for each step.
    ///
    /// # Errors
    /// Why not.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.action {
            Action::Install(install) => install.run(),
            Action::Uninstall(uninstall) => uninstall.run(),
            Action::Status(status) => status.run(),
            Action::Verify(common) => verify(common),
        }
    }
}

impl Common {
    fn socket(&self) -> PathBuf {
        let named = self.address.clone();
        named.unwrap_or_else(wisp_node::containerd::usual_socket)
    }

    /// The same once nobody else changes the node.
    fn machine_alone(&self) -> Result<Machine> {
        wisp_install::wait_for_others(&self.state)?;
        self.machine()
    }

    fn machine(&self) -> Result<Machine> {
        let socket = self.socket();
        let containerd = Containerd::at(&socket).with_context(|| {
            format!(
                "connect to containerd at {}: start it, or name its socket with --address",
                socket.display()
            )
        })?;
        let Some(daemon) = containerd.daemon else {
            bail!(
                "the process behind {} cannot be looked at: run this as root, in the node's own \
                 process namespace",
                socket.display()
            );
        };
        Ok(Machine::new(socket, daemon, self.restart.clone()))
    }

    fn place(&self, machine: &Machine, programs: Option<&Path>) -> Result<Place> {
        Ok(Place {
            root: "/".into(),
            config: machine.config().to_owned(),
            state: self.state.clone(),
            programs: programs.map(Path::to_owned),
            schema: machine.schema()?,
            by_type: machine.is_before_1_7()?,
        })
    }
}

impl Install {
    fn run(&self) -> Result<ExitCode> {
        let machine = self.common.machine_alone()?;
        let place = self.common.place(&machine, self.programs.as_deref())?;
        let from = match &self.from {
            Some(from) => from.clone(),
            None => {
                let own = std::env::current_exe().context("find wisp itself")?;
                own.parent().unwrap_or(Path::new("/")).to_owned()
            }
        };
        let found = Found::of(&from)?;
        let done = wisp_install::install(&place, &found, &machine, &mut Lines)?;
        if self.json {
            let said = json!({
                "version": found.version,
                "containerd": machine.version()?,
                "file": done.file,
                "configured": done.configured,
                "shim": done.shim,
            });
            tell(&format!("{said:#}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let how = match done.configured {
            true => "has the runtime now",
            false => "had the runtime already",
        };
        tell(&format!(
            "wisp {} is installed: {} {how}, with the shim {}",
            found.version,
            done.file.display(),
            done.shim.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Uninstall {
    fn run(&self) -> Result<ExitCode> {
        if self.offline {
            return self.without_containerd();
        }
        let machine = self.common.machine_alone().map_err(|error| {
            // What an interrupted run has left is the way out as well.
            match self.common.state.exists() {
                true => error.context(
                    "containerd must run to be asked; if it does not come up with what was \
                     changed, use --offline",
                ),
                false => error,
            }
        })?;
        let place = self.common.place(&machine, None)?;
        if self.common.state.exists() {
            // Its processes are none of a pod's, and would be waited for in vain.
            machine.clear().map_err(anyhow::Error::msg)?;
        }
        self.remove(&place, &machine, &mut Lines, "wisp is removed")
    }

    fn without_containerd(&self) -> Result<ExitCode> {
        let socket = self.common.socket();
        if Containerd::at(&socket).is_ok() {
            bail!(
                "containerd answers at {}: leave out --offline",
                socket.display()
            );
        }
        let place = Place {
            root: "/".into(),
            config: PathBuf::new(),
            state: self.common.state.clone(),
            programs: None,
            schema: 0,
            by_type: false,
        };
        let done = "wisp is removed; start containerd";
        self.remove(&place, &Offline, &mut OfflineLines, done)
    }

    fn remove(
        &self,
        place: &Place,
        node: &dyn wisp_install::Node,
        watch: &mut dyn Watch,
        done: &str,
    ) -> Result<ExitCode> {
        let end = Instant::now() + Duration::from_secs(self.wait);
        loop {
            match wisp_install::uninstall(place, node, watch) {
                Ok(true) => {
                    tell(done)?;
                    return Ok(ExitCode::SUCCESS);
                }
                Ok(false) => {
                    tell("nothing of wisp is installed here")?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(InstallError::InUse { count }) if Instant::now() < end => {
                    say(&format!("{count} processes of wisp still run"));
                    std::thread::sleep(Duration::from_secs(1));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Status {
    fn run(&self) -> Result<ExitCode> {
        let machine = self.common.machine()?;
        let place = self.common.place(&machine, None)?;
        let state = wisp_install::status(&place, &machine)?;
        if self.json {
            tell(&format!("{:#}", as_json(&state)))?;
        } else {
            for line in as_text(&state) {
                tell(&line)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn as_json(state: &State) -> serde_json::Value {
    json!({
        "installed": state.record,
        "shim": state.shim,
        "processes": state.in_use,
    })
}

fn as_text(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    match &state.record {
        None => lines.push("nothing was installed by `wisp node install`".to_owned()),
        Some(record) => {
            let proven = match record.proven {
                true => "works",
                false => "was interrupted: run `wisp node install` again",
            };
            let programs = record.programs.display();
            lines.push(format!(
                "version {} in {programs}: {proven}",
                record.version
            ));
            if let Some(change) = &record.change {
                lines.push(format!("containerd is told by {}", change.file.display()));
            }
        }
    }
    lines.push(match &state.shim {
        Some(shim) => format!("pods that name wisp get {}", shim.display()),
        None => "containerd's configuration has no runtime wisp".to_owned(),
    });
    lines.push(format!("{} processes run it", state.in_use.len()));
    lines
}

fn verify(common: &Common) -> Result<ExitCode> {
    use wisp_install::Node as _;
    let machine = common.machine()?;
    let place = common.place(&machine, None)?;
    let state = wisp_install::status(&place, &machine)?;
    let Some(shim) = state.shim else {
        bail!(
            "{} has no runtime wisp: run `wisp node install`",
            place.config.display()
        );
    };
    machine
        .ready(Some(wisp_install::HANDLER))
        .map_err(anyhow::Error::msg)?;
    machine.prove(&shim).map_err(anyhow::Error::msg)?;
    tell("pods can name wisp, and a program runs by it")?;
    Ok(ExitCode::SUCCESS)
}

/// A line for each step on standard error.
struct Lines;

impl Watch for Lines {
    fn before(&mut self, step: Step) -> ControlFlow<()> {
        say(&step.to_string());
        ControlFlow::Continue(())
    }
}

/// The same without those that are containerd's.
struct OfflineLines;

impl Watch for OfflineLines {
    fn before(&mut self, step: Step) -> ControlFlow<()> {
        match step {
            Step::Validate | Step::Restart | Step::Ready => ControlFlow::Continue(()),
            step => Lines.before(step),
        }
    }
}

/// A line of the answer on standard output.
fn tell(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("write to standard output")
}

fn say(text: &str) {
    let mut stderr = io::stderr();
    let mark = if stderr.is_terminal() {
        "\x1b[2m==>\x1b[0m"
    } else {
        "==>"
    };
    // Nobody reads: that is no reason to stop halfway.
    let _ = writeln!(stderr, "{mark} {text}");
}
