//! One private containerd.

use crate::unit::{self, Unit};
use crate::{Version, cgroups, command, configuration, leaks, paths, processes, wait};
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// How long containerd may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a compilation may take; as much as by default.
const COMPILER: Duration = Duration::from_secs(120);

/// A running containerd of one version with a root, state, socket and config of
/// its own. Dropping it removes all that is left of it and of its containers.
#[derive(Debug)]
pub struct Containerd {
    version: Version,
    dir: TempDir,
    daemon: Daemon,
}

/// Whose process it is.
#[derive(Debug)]
enum Daemon {
    /// Ours, with all that it has in the directory.
    Child(Mutex<Child>),
    /// systemd's, with all that it has where distributions put it.
    Unit(Unit),
}

impl Containerd {
    /// Starts one and waits until its socket answers.
    ///
    /// # Errors
    /// When it does not come up; its log is part of the error.
    pub fn start(version: Version) -> Result<Self> {
        Self::start_with(version, |dir| Ok(configuration::without_pods(dir)))
    }

    /// Starts one with the configuration that `configure` makes for its
    /// directory: root, state and the socket `c.sock` belong there.
    ///
    /// # Errors
    /// `configure`'s, and as [`Self::start`].
    pub fn start_with(
        version: Version,
        configure: impl FnOnce(&Path) -> Result<String>,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&own_name()).tempdir()?;
        let config = dir.path().join("config.toml");
        fs::write(&config, configure(dir.path())?)?;
        fs::write(
            dir.path().join("wisp.toml"),
            format!(
                "[cache]
dir = {:?}
run_dir = {:?}
[compiler]
timeout_seconds = {}
",
                dir.path().join("aot"),
                dir.path().join("aot-run"),
                wait::here(COMPILER).as_secs()
            ),
        )?;
        let node = Self {
            version,
            daemon: Daemon::Child(Mutex::new(spawn(version, dir.path())?)),
            dir,
        };
        node.wait_until_up()?;
        Ok(node)
    }

    /// Starts the machine's own, a unit of systemd's, with the configuration that
    /// `configure` makes of the package's. The directory is for everything else.
    ///
    /// # Errors
    /// `configure`'s, and when it does not come up.
    pub fn start_unit(
        version: Version,
        configure: impl FnOnce(&Path, &str) -> Result<String>,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&own_name()).tempdir()?;
        let unit = Unit::start(version, |text| configure(dir.path(), text))?;
        let node = Self {
            version,
            daemon: Daemon::Unit(unit),
            dir,
        };
        node.wait_until_up()?;
        Ok(node)
    }

    /// The unit of systemd's that it is.
    ///
    /// # Errors
    /// When it is none.
    pub fn unit(&self) -> Result<&Unit> {
        match &self.daemon {
            Daemon::Unit(unit) => Ok(unit),
            Daemon::Child(_) => bail!("it is no unit of systemd's"),
        }
    }

    /// Ends it as a crash would and starts it again. Containers are not asked.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn crash_and_restart(&self) -> Result<()> {
        self.crash()?.restart()
    }

    /// Ends it as a crash would. Containers are not asked.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn crash(&self) -> Result<Crashed<'_>> {
        let Daemon::Child(child) = &self.daemon else {
            bail!("systemd would start it again by itself");
        };
        let mut child = locked(child);
        child.kill()?;
        child.wait()?;
        Ok(Crashed(self))
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it does not; with its last words.
    pub fn wait_until_up(&self) -> Result<()> {
        let mut ended = None;
        let up = wait::until(PATIENCE, || {
            ended = self.exit();
            if ended.is_some() {
                return Some(false);
            }
            UnixStream::connect(self.socket()).ok()?;
            // It listens before its services are there.
            let said = command::run(self.ctr("").arg("version"), Vec::new(), PATIENCE).ok()?;
            (said.code == 0).then_some(true)
        });
        if up != Some(true) {
            bail!(
                "containerd {} did not come up ({ended:?}):\n{}",
                self.version,
                self.log_lines(|_| true, 60)
            );
        }
        Ok(())
    }

    /// How it ended, if it does not run any more.
    fn exit(&self) -> Option<String> {
        match &self.daemon {
            Daemon::Child(child) => Some(locked(child).try_wait().ok()??.to_string()),
            Daemon::Unit(unit) => unit.has_failed().then(|| "failed".to_owned()),
        }
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The directory of everything it has.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its gRPC socket.
    pub fn socket(&self) -> PathBuf {
        match &self.daemon {
            Daemon::Child(_) => self.dir.path().join("c.sock"),
            Daemon::Unit(_) => self.state().join("containerd.sock"),
        }
    }

    /// Its state directory, where bundles are.
    pub fn state(&self) -> PathBuf {
        match &self.daemon {
            Daemon::Child(_) => self.dir.path().join("state"),
            Daemon::Unit(_) => unit::STATE.into(),
        }
    }

    /// Its root directory, where content and snapshots are.
    pub fn root(&self) -> PathBuf {
        match &self.daemon {
            Daemon::Child(_) => self.dir.path().join("root"),
            Daemon::Unit(_) => unit::ROOT.into(),
        }
    }

    /// The file with the settings of wisp, which `WISP_CONFIG` names to its shims.
    pub fn settings(&self) -> PathBuf {
        self.dir.path().join("wisp.toml")
    }

    /// The directory of compiled code that its containers share.
    pub fn cache(&self) -> PathBuf {
        self.dir.path().join("aot")
    }

    /// Its process id; 0 while systemd has none.
    pub fn pid(&self) -> u32 {
        match &self.daemon {
            Daemon::Child(child) => locked(child).id(),
            Daemon::Unit(unit) => unit.pid(),
        }
    }

    /// Its own `ctr`, in a namespace.
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut ctr = Command::new(self.version.programs().join("ctr"));
        ctr.arg("--address").arg(self.socket());
        if !namespace.is_empty() {
            ctr.args(["--namespace", namespace]);
        }
        ctr
    }

    /// How it ended and its last words, if it does not run any more.
    pub fn ended(&self) -> Option<String> {
        let status = self.exit()?;
        let last = self.log_lines(|_| true, 5);
        Some(format!(
            "containerd {} ended: {status}\n{last}",
            self.version
        ))
    }

    /// The last lines of its log that contain `what`; shims log there too.
    pub fn log_about(&self, what: &str) -> String {
        self.log_lines(|line| line.contains(what), 150)
    }

    /// Its whole log.
    pub fn log(&self) -> String {
        if let Daemon::Unit(unit) = &self.daemon {
            return unit.log();
        }
        fs::read(self.dir.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_lines(&self, keep: impl Fn(&str) -> bool, most: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().filter(|line| keep(line)).collect();
        lines[lines.len().saturating_sub(most)..].join("\n")
    }

    /// Ends what the containers of a failed test left running, so that it does
    /// not outlive the tests.
    pub fn sweep(&self, namespace: &str) {
        sweep(namespace);
    }
}

/// A containerd that is down for a while.
#[derive(Debug)]
#[must_use]
pub struct Crashed<'a>(&'a Containerd);

impl Crashed<'_> {
    /// Starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(self) -> Result<()> {
        if let Daemon::Child(child) = &self.0.daemon {
            *locked(child) = spawn(self.0.version, self.0.dir.path())?;
        }
        self.0.wait_until_up()
    }
}

fn locked(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every directory and namespace that this process makes begins with.
pub fn own_name() -> String {
    format!("wisp-{}-", std::process::id())
}

/// Removes the processes, control groups and directories that this process and
/// its containers have made, when there is no time for each to do it itself.
pub fn sweep_all() {
    let name = own_name();
    let own = i32::try_from(std::process::id()).ok();
    for process in processes::all() {
        if process.parent() == own {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }
    let root = leaks::children(Path::new(cgroups::MOUNT));
    let below = root.iter().flat_map(|hierarchy| leaks::children(hierarchy));
    // Of version 2 there is one hierarchy, the directory itself.
    for group in below.chain(root.iter().cloned()) {
        let group = group.file_name().unwrap_or_default().to_string_lossy();
        if group.starts_with(&name) {
            sweep(&group);
        }
    }
    for dir in leaks::children(&std::env::temp_dir()) {
        let own = dir.file_name().unwrap_or_default().to_string_lossy();
        if own.starts_with(&name) {
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

fn sweep(namespace: &str) {
    for process in processes::concerning(namespace) {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    wait::until(Duration::from_secs(5), || {
        processes::concerning(namespace).is_empty().then_some(())
    });
    for group in leaks::cgroups(namespace) {
        let _ = fs::remove_dir(group);
    }
    leaks::remove_empty_cgroups(namespace);
}

impl Containerd {
    /// Stops it and removes all that is left of it and of its containers. May
    /// be called again.
    pub fn stop(&self) {
        match &self.daemon {
            Daemon::Child(child) => stop_child(&mut locked(child)),
            Daemon::Unit(unit) => unit.stop(),
        }
        // Its shims name its socket in their arguments, and their own.
        let names = match &self.daemon {
            Daemon::Child(_) => self.dir.path().to_string_lossy().into_owned(),
            Daemon::Unit(_) => self.socket().to_string_lossy().into_owned(),
        };
        for process in processes::concerning(&names) {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            if let Some((_, socket)) = process.line.split_once("-socket unix://") {
                let _ = fs::remove_file(socket.split(' ').next().unwrap_or(socket));
            }
        }
        let own = [self.dir.path().to_owned(), self.state(), self.root()];
        let mut targets: Vec<String> = leaks::mounts()
            .iter()
            .filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned))
            .filter(|target| own.iter().any(|dir| Path::new(target).starts_with(dir)))
            .collect();
        targets.reverse();
        for target in targets {
            let _ = umount2(target.as_str(), MntFlags::MNT_DETACH);
        }
        for dir in own {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn stop_child(child: &mut Child) {
    if let (Ok(pid), Ok(None)) = (i32::try_from(child.id()), child.try_wait()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if wait::until(PATIENCE, || child.try_wait().ok().flatten()).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl AsRef<Containerd> for Containerd {
    fn as_ref(&self) -> &Containerd {
        self
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(version: Version, dir: &Path) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    let mut daemon = Command::new(version.programs().join("containerd"));
    daemon
        .arg("--config")
        .arg(dir.join("config.toml"))
        .args(["--log-level", "debug"])
        .env("PATH", search_path(version)?)
        .env("WISP_CONFIG", dir.join("wisp.toml"))
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    daemon.spawn().with_context(|| format!("start {daemon:?}"))
}

/// The programs under test come first; containerd finds shims by this path.
fn search_path(version: Version) -> Result<std::ffi::OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let mut path = vec![paths::binaries(), version.programs()];
    path.extend(std::env::split_paths(&inherited));
    std::env::join_paths(path).context("PATH")
}
