//! This machine, as the installer needs it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wisp_install::Node;
use wisp_node::settings::Runtime;
use wisp_node::{Containerd, Daemon, Settings, Status};

use super::cri;
use crate::doctor::{Client, Trial};

/// How long containerd may take to come up with all its plugins.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is asked meanwhile.
const PACE: Duration = Duration::from_millis(200);

/// The machine that this runs on.
pub struct Machine {
    socket: PathBuf,
    daemon: Daemon,
    restart: Restart,
}

/// What starts containerd anew.
enum Restart {
    /// The owner's command.
    Command(String),
    /// systemd, by a unit; else why not. Known from the beginning: the process that
    /// says so does not outlive the first restart.
    Unit(Result<String, String>),
}

impl Machine {
    /// With the containerd that listens at `socket`, which `restart` restarts
    /// where systemd does not.
    pub fn new(socket: PathBuf, daemon: Daemon, restart: Option<String>) -> Self {
        let restart = match restart {
            Some(command) => Restart::Command(command),
            None => Restart::Unit(unit(daemon.pid)),
        };
        Self {
            socket,
            daemon,
            restart,
        }
    }

    /// The file of containerd's configuration; it need not be there.
    pub fn config(&self) -> &Path {
        &self.daemon.config
    }

    /// The newest schema that containerd knows.
    ///
    /// # Errors
    /// When it does not say.
    pub fn schema(&self) -> anyhow::Result<i64> {
        let text = self
            .containerd(&["config", "default"])
            .map_err(anyhow::Error::msg)?;
        let settings = Settings::parse(&text)?;
        Ok(settings.schema)
    }

    /// The version of containerd, such as `1.6.20~ds1` or `2.1.9`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version(&self) -> anyhow::Result<String> {
        let version = Client::connect(&self.socket, "")
            .and_then(|client| client.version())
            .map_err(anyhow::Error::msg)?;
        Ok(version.trim_start_matches('v').to_owned())
    }

    /// Whether it is too old to look at a runtime's path for pods.
    ///
    /// # Errors
    /// When it does not answer, or is too old for wisp.
    pub fn is_before_1_7(&self) -> anyhow::Result<bool> {
        let version = self.version()?;
        anyhow::ensure!(
            wisp_node::kernel::at_least(&version, 1, 6),
            "containerd {version} at {}: install containerd 1.6 or later",
            self.socket.display()
        );
        Ok(!wisp_node::kernel::at_least(&version, 1, 7))
    }

    /// Removes what a proof that was killed has left running.
    ///
    /// # Errors
    /// containerd's words.
    pub fn clear(&self) -> Result<(), String> {
        Trial {
            socket: &self.socket,
            runtime: None,
            snapshotter: &self.snapshotter()?,
        }
        .clear()
    }

    /// What makes pods' root file systems.
    fn snapshotter(&self) -> Result<String, String> {
        let daemon = Containerd::at(&self.socket)
            .map_err(|error| error.to_string())?
            .daemon;
        let settings = daemon.and_then(|daemon| daemon.settings().ok());
        let pods = settings.and_then(|settings| settings.cri);
        Ok(pods.map_or_else(|| "overlayfs".to_owned(), |cri| cri.snapshotter))
    }

    fn containerd(&self, arguments: &[&str]) -> Result<String, String> {
        // Also if the file has been replaced since it was started.
        let exe = format!("/proc/{}/exe", self.daemon.pid);
        let program = match Path::new(&exe).exists() {
            true => Path::new(&exe),
            false => &self.daemon.program,
        };
        let said = Command::new(program)
            .arg0(&self.daemon.name)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("run {}: {error}", program.display()))?;
        if said.status.success() {
            return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&said.stderr);
        Err(words.lines().last().unwrap_or("it said nothing").to_owned())
    }
}

/// The unit of systemd that the process `pid` is of.
fn unit(pid: i32) -> Result<String, String> {
    let way_out = "name the command that restarts it with --restart";
    if !Path::new("/run/systemd/system").exists() {
        return Err(format!("systemd does not run here: {way_out}"));
    }
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    unit_of(&text).ok_or_else(|| format!("process {pid} is of no unit of systemd's: {way_out}"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let said = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if said.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&said.stderr);
    Err(format!(
        "{command:?} ended with {}: {}",
        said.status,
        words.trim().replace('\n', " ")
    ))
}

/// The unit that a process with these lines of `/proc/PID/cgroup` is of.
fn unit_of(cgroups: &str) -> Option<String> {
    cgroups
        .lines()
        .filter(|line| line.starts_with("0::") || line.contains(":name=systemd:"))
        .find_map(|line| {
            line.rsplit('/')
                .find(|name| name.ends_with(".service"))
                .map(str::to_owned)
        })
}

impl Node for Machine {
    fn dump(&self, file: &Path) -> Result<String, String> {
        let file = file.to_string_lossy();
        self.containerd(&["--config", &file, "config", "dump"])
    }

    fn restart(&self) -> Result<(), String> {
        let systemctl = |action: &str, unit: &str| {
            let mut systemctl = Command::new("systemctl");
            run(systemctl.args([action, unit]))
        };
        match &self.restart {
            Restart::Command(text) => run(Command::new("/bin/sh").args(["-c", text])),
            Restart::Unit(unit) => {
                let unit = unit.as_ref().map_err(String::clone)?;
                systemctl("restart", unit).inspect_err(|_| {
                    // The next one comes soon, and must not be one too many.
                    let _ = systemctl("reset-failed", unit);
                })
            }
        }
    }

    fn ready(&self, handler: Option<&str>) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let missing = match cri::runtimes(&self.socket) {
                Ok(runtimes) => match handler {
                    Some(name) if !runtimes.iter().any(|has| has == name) => {
                        format!("it has the runtimes {runtimes:?}, and not {name}")
                    }
                    _ => return Ok(()),
                },
                Err(reason) => reason,
            };
            if Instant::now() >= end {
                return Err(missing);
            }
            std::thread::sleep(PACE);
        }
    }

    fn prove(&self, shim: &Path) -> Result<(), String> {
        let runtime = Runtime {
            runtime_path: shim.display().to_string(),
            ..Runtime::default()
        };
        let finding = Trial {
            socket: &self.socket,
            runtime: Some(&runtime),
            snapshotter: &self.snapshotter()?,
        }
        .check();
        match finding.status {
            Status::Ok => Ok(()),
            _ => Err(finding.found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_in_the_cgroup() {
        let second = "0::/system.slice/containerd.service\n";
        assert_eq!(unit_of(second).as_deref(), Some("containerd.service"));
        let first = "5:memory:/x\n1:name=systemd:/system.slice/k3s.service/inner\n";
        assert_eq!(unit_of(first).as_deref(), Some("k3s.service"));
        assert_eq!(unit_of("0::/user.slice/session-1.scope\n"), None);
    }
}
