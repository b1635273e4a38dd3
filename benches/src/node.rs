//! A private containerd, in a mount namespace of our own.

use crate::started::{self, Noted};
use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use wisp_tests::{Version, configuration, leaks, processes, wait};

/// How long containerd may take to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives this process a mount namespace of its own, and takes an unused
/// cgroup v2 hierarchy out of it: crun refuses a machine with both versions. To
/// be called before there are threads.
///
/// # Errors
/// When the kernel refuses: this needs root.
pub fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace (this needs root)")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("keep mounts private")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of = |kind: &str| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (target, found) = (fields.next()?, fields.next()?);
            (found == kind).then(|| target.to_owned())
        })
    };
    if let (Some(_), Some(unified)) = (of("cgroup"), of("cgroup2")) {
        umount2(unified.as_str(), MntFlags::MNT_DETACH)
            .with_context(|| format!("take {unified} out of our mount namespace"))?;
    }
    Ok(())
}

/// A running containerd. Dropping it ends it and all that it started.
#[derive(Debug)]
pub struct Node {
    version: Version,
    dir: TempDir,
    child: Child,
    namespace: String,
    _noted: [Noted; 2],
}

impl Node {
    /// Starts one for tasks and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn start(version: Version) -> Result<Self> {
        Self::start_with(version, None, configuration::without_pods)
    }

    /// Starts one with a configuration of its own; `namespace` is where its
    /// containers are, without which they are in one named like its directory.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        version: Version,
        namespace: Option<&str>,
        config: impl FnOnce(&Path) -> String,
    ) -> Result<Self> {
        version.obtain().map_err(anyhow::Error::msg)?;
        // Short: socket paths have at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("wisp-bench-").tempdir()?;
        let name = dir.path().file_name().unwrap_or_default();
        let namespace = namespace.map_or_else(|| name.to_string_lossy().into(), str::to_owned);
        fs::write(dir.path().join("config.toml"), config(dir.path()))?;
        fs::write(
            dir.path().join("wisp.toml"),
            format!("[cache]\ndir = {:?}\n", dir.path().join("aot")),
        )?;
        let log = File::create(dir.path().join("log"))?;
        let mut path = vec![version.programs()];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let child = Command::new(version.programs().join("containerd"))
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .args(["--log-level", "warn"])
            .env("PATH", std::env::join_paths(path)?)
            .env("WISP_CONFIG", dir.path().join("wisp.toml"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        let noted = [started::process(child.id()), started::directory(dir.path())];
        let node = Self {
            version,
            dir,
            child,
            namespace,
            _noted: noted,
        };
        let up = wait::until(PATIENCE, || {
            let mut version = node.ctr();
            version.arg("version").stdout(Stdio::null());
            version.stderr(Stdio::null());
            version.status().ok()?.success().then_some(())
        });
        if up.is_none() {
            bail!("containerd did not come up:\n{}", node.last_words());
        }
        Ok(node)
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// A directory for FIFOs and images.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What is in the paths and control groups of all that it runs, and in
    /// nobody else's.
    pub fn name(&self) -> String {
        let name = self.dir.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The containerd namespace of the benchmarks.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its own `ctr`.
    pub fn ctr(&self) -> Command {
        let mut ctr = Command::new(self.version.programs().join("ctr"));
        ctr.arg("--address")
            .arg(self.socket())
            .args(["--namespace", &self.namespace]);
        ctr
    }

    /// Runs `ctr` and takes nothing but success; answers its output.
    ///
    /// # Errors
    /// What it said.
    pub fn ctr_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctr().args(arguments).output()?;
        ensure!(
            output.status.success(),
            "ctr {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Forgets what wisp has compiled, so that the next start is a first one.
    ///
    /// # Errors
    /// When the cache cannot be emptied.
    pub fn empty_cache(&self) -> Result<()> {
        let cache = self.dir.path().join("aot");
        let Ok(entries) = fs::read_dir(&cache) else {
            return Ok(());
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            }
            .with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    /// The end of its log, shims' words included.
    pub fn last_words(&self) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if wait::until(PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        remove(self.dir.path());
    }
}

/// Removes all that is left of the containers of the containerd in `dir`.
pub fn remove(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    for process in processes::concerning(&name) {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    wait::until(Duration::from_secs(5), || {
        processes::concerning(&name).is_empty().then_some(())
    });
    let mut targets: Vec<String> = leaks::mounts()
        .iter()
        .filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned))
        .filter(|target| Path::new(target).starts_with(dir))
        .collect();
    targets.reverse();
    for target in targets {
        let _ = umount2(target.as_str(), MntFlags::MNT_DETACH);
    }
    for group in leaks::cgroups(&name) {
        let _ = fs::remove_dir(group);
    }
    leaks::remove_empty_cgroups(&name);
    // What the peers keep their state in has a fixed place.
    for place in ["/run/containerd/runc", "/run/containerd/peerwasi"] {
        let _ = fs::remove_dir_all(Path::new(place).join(&*name));
    }
}
