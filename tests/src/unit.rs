//! The machine's own containerd, as a distribution has it: a unit of systemd's,
//! with programs in `/usr/bin` and its configuration in `/etc/containerd`. Only
//! where nobody else needs that machine.

use crate::{Version, command, paths};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Its name.
pub const NAME: &str = "containerd.service";
/// Its configuration.
pub const CONFIG: &str = "/etc/containerd/config.toml";
/// Its state directory, where its socket is.
pub const STATE: &str = "/run/containerd";
/// Its root directory.
pub const ROOT: &str = "/var/lib/containerd";

/// Where systemd looks first; an owner's own units and changes are there.
const UNITS: &str = "/etc/systemd/system";
/// Where packages have their programs.
const PROGRAMS: &str = "/usr/bin";
/// How long systemd may take for a start or a stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The unit, and what was in the place of its files.
#[derive(Debug)]
pub struct Unit {
    before: TempDir,
    kept: Mutex<BTreeMap<PathBuf, Kept>>,
}

/// What was there.
#[derive(Debug)]
enum Kept {
    Nothing,
    Link(PathBuf),
    /// A file, of which this is a copy.
    Copy(PathBuf),
}

impl Unit {
    /// Whether this machine is one on which all of that may be changed: systemd
    /// runs it, and `WISP_TESTS_OWN_MACHINE` says that it is nobody else's.
    pub fn may_start() -> bool {
        std::env::var_os("WISP_TESTS_OWN_MACHINE").is_some()
            && Path::new("/run/systemd/system").exists()
    }

    /// Puts the package's programs and unit where they belong, and starts it
    /// with what `configure` makes of the package's configuration.
    ///
    /// # Errors
    /// When systemd does not start it; its journal is part of the error.
    pub fn start(version: Version, configure: impl FnOnce(&str) -> Result<String>) -> Result<Self> {
        ensure!(
            Self::may_start(),
            "only in a machine of its own with systemd"
        );
        let unit = Self {
            before: tempfile::tempdir()?,
            kept: Mutex::default(),
        };
        for program in programs(version)? {
            unit.replace(&Path::new(PROGRAMS).join(name(&program)), &program)?;
        }
        let place = Path::new(UNITS).join(NAME);
        unit.keep(&place)?;
        let _ = fs::remove_file(&place);
        let package = package(version);
        let text = fs::read_to_string(package.join("lib/systemd/system").join(NAME))
            .or_else(|_| fs::read_to_string(package.join("usr/lib/systemd/system").join(NAME)))
            .context("the package has no unit")?;
        fs::write(&place, text)?;
        unit.keep(Path::new(CONFIG))?;
        let text = fs::read_to_string(package.join("etc/containerd/config.toml"))
            .or_else(|_| fs::read_to_string(CONFIG))
            .context("the package has no configuration")?;
        fs::create_dir_all("/etc/containerd")?;
        fs::write(CONFIG, configure(&text)?)?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["start", NAME]).with_context(|| unit.log())?;
        Ok(unit)
    }

    /// Puts another version's programs in the place of those that run, and
    /// restarts it, as an upgrade of the package does.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn become_version(&self, version: Version) -> Result<()> {
        for program in programs(version)? {
            self.replace(&Path::new(PROGRAMS).join(name(&program)), &program)?;
        }
        systemctl(&["restart", NAME]).with_context(|| self.log())?;
        Ok(())
    }

    /// Replaces a file by another with its mode, as packages do it: also while
    /// it runs.
    fn replace(&self, place: &Path, new: &Path) -> Result<()> {
        self.keep(place)?;
        rename_over(new, place)
    }

    /// Remembers what is at a place, the first time.
    fn keep(&self, place: &Path) -> Result<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.contains_key(place) {
            return Ok(());
        }
        let what = match fs::read_link(place) {
            Ok(target) => Kept::Link(target),
            Err(_) if place.exists() => {
                let copy = self.before.path().join(kept.len().to_string());
                fs::copy(place, &copy)?;
                Kept::Copy(copy)
            }
            Err(_) => Kept::Nothing,
        };
        kept.insert(place.to_owned(), what);
        Ok(())
    }

    /// Stops it, and puts back what was there before. Its containers run on. May
    /// be called again.
    pub fn stop(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() {
            return;
        }
        let stopped = systemctl(&["stop", NAME]).map(drop);
        let back = std::mem::take(&mut *kept)
            .iter()
            .try_for_each(|(place, what)| put_back(place, what));
        let forgotten = systemctl(&["daemon-reload"]).map(drop);
        for result in [stopped, back, forgotten] {
            if let Err(error) = result {
                eprintln!("wisp-tests: {error:#}");
            }
        }
    }

    /// A file with more settings of the unit, which is gone when this is dropped.
    ///
    /// # Errors
    /// When systemd does not read it.
    pub fn with_settings(&self, text: &str) -> Result<Settings> {
        let dir = PathBuf::from(UNITS).join(format!("{NAME}.d"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("test.conf"), text)?;
        let settings = Settings(dir);
        systemctl(&["daemon-reload"])?;
        Ok(settings)
    }

    /// A property of the unit.
    ///
    /// # Errors
    /// systemctl's.
    pub fn property(&self, name: &str) -> Result<String> {
        systemctl(&["show", "--value", "--property", name, NAME])
    }

    /// Which start of it this is; another after each restart.
    ///
    /// # Errors
    /// When it does not run.
    pub fn invocation(&self) -> Result<String> {
        let state = self.property("ActiveState")?;
        ensure!(state == "active", "{NAME} is {state}:\n{}", self.log());
        self.property("InvocationID")
    }

    /// Whether systemd has given it up.
    pub fn has_failed(&self) -> bool {
        self.property("ActiveState")
            .is_ok_and(|state| state == "failed")
    }

    /// Its process; 0 for none.
    pub fn pid(&self) -> u32 {
        self.property("MainPID")
            .ok()
            .and_then(|pid| pid.parse().ok())
            .unwrap_or_default()
    }

    /// What it and its shims wrote to the journal since the machine came up.
    pub fn log(&self) -> String {
        let mut journal = Command::new("journalctl");
        journal.args(["--unit", NAME, "--output", "cat", "--no-pager", "--boot"]);
        command::run(&mut journal, Vec::new(), PATIENCE)
            .map(|said| said.out())
            .unwrap_or_default()
    }
}

/// More settings of the unit, for as long as this is there.
#[derive(Debug)]
#[must_use]
pub struct Settings(PathBuf);

impl Drop for Settings {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        if let Err(error) = systemctl(&["daemon-reload"]) {
            eprintln!("wisp-tests: {error:#}");
        }
    }
}

/// The root of a package's files.
fn package(version: Version) -> PathBuf {
    match version {
        Version::V1_6 => "/".into(),
        Version::V2_1 => paths::repository().join("target/containerd-2.1"),
    }
}

fn programs(version: Version) -> Result<Vec<PathBuf>> {
    if package(version) == Path::new("/") {
        return Ok(Vec::new());
    }
    let found = ["containerd", "containerd-shim-runc-v2", "ctr"]
        .map(|program| version.programs().join(program));
    for program in &found {
        ensure!(program.exists(), "{} is missing", program.display());
    }
    Ok(found.into())
}

/// systemctl's answer.
///
/// # Errors
/// Its words.
pub fn systemctl(args: &[&str]) -> Result<String> {
    let mut systemctl = Command::new("systemctl");
    systemctl.args(args);
    let ended = command::run(&mut systemctl, Vec::new(), PATIENCE)?;
    ensure!(ended.code == 0, "systemctl {args:?}: {}", ended.err());
    Ok(ended.out().trim().to_owned())
}

fn name(path: &Path) -> &Path {
    path.file_name().map_or(path, Path::new)
}

fn put_back(place: &Path, kept: &Kept) -> Result<()> {
    match kept {
        Kept::Copy(copy) => rename_over(copy, place),
        Kept::Nothing => fs::remove_file(place).with_context(|| place.display().to_string()),
        Kept::Link(target) => fs::remove_file(place)
            .and_then(|()| std::os::unix::fs::symlink(target, place))
            .with_context(|| place.display().to_string()),
    }
}

fn rename_over(new: &Path, place: &Path) -> Result<()> {
    let beside = place.with_extension("new");
    fs::copy(new, &beside)?;
    let mode = fs::metadata(new)?.permissions().mode();
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, place).with_context(|| format!("replace {}", place.display()))
}
