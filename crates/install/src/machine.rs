//! A node to test on: its files are in a directory, and its containerd does not run.

use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use toml::{Table, Value};

use crate::install::install;
use crate::layout::below;
use crate::meaning::Meaning;
use crate::steps::{Done, Node, Place, Step, Watch};
use crate::uninstall::uninstall;
use crate::{CLI, Found, InstallError, SHIM};

/// A node whose containerd does not run: it reads configurations as containerd
/// 2.1 does, and remembers with which it was started last.
pub(crate) struct Machine {
    root: TempDir,
    pub(crate) restarts: Cell<usize>,
    /// What it does not survive.
    pub(crate) fails: Option<Step>,
    /// Whether a plugin's tables in an imported file replace the others, as
    /// containerd 1.x has it.
    pub(crate) replaces: bool,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self {
            root: tempfile::tempdir().expect("root"),
            restarts: Cell::default(),
            fails: None,
            replaces: false,
        };
        fs::create_dir_all(machine.at("/etc/containerd/conf.d")).expect("dirs");
        machine.write("/etc/os-release", "ID=debian\n");
        machine
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        below(self.root.path(), Path::new(path))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().expect("parent")).expect("dir");
        fs::write(self.at(path), text).expect("write");
    }

    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            root: self.root.path().to_owned(),
            config: CONFIG.into(),
            state: "/var/lib/wisp/install".into(),
            programs: None,
            schema: 3,
            by_type: false,
        }
    }

    pub(crate) fn install(
        &self,
        version: &str,
        watch: &mut dyn Watch,
    ) -> Result<Done, InstallError> {
        let dir = programs(version);
        let found = Found::of(dir.path())?;
        install(&self.place(), &found, self, watch)
    }

    pub(crate) fn uninstall(&self, watch: &mut dyn Watch) -> Result<bool, InstallError> {
        uninstall(&self.place(), self, watch)
    }

    /// All files of ours and of containerd's, with what is in them.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut dirs = vec![self.root.path().to_owned()];
        let mut files = Vec::new();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("dir").flatten() {
                let path = entry.path();
                if entry.file_type().expect("type").is_dir() {
                    dirs.push(path);
                } else {
                    files.push((path.clone(), fs::read(path).unwrap_or_default()));
                }
            }
        }
        files.sort();
        files
    }
}

impl Node for Machine {
    fn dump(&self, file: &Path) -> Result<String, String> {
        let Ok(text) = fs::read_to_string(below(self.root.path(), file)) else {
            return Ok("version = 3\n".into());
        };
        let mut all: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        for import in all
            .get("imports")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
        {
            let import = import.as_str().expect("text");
            for path in glob(&self.at(import)) {
                let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
                let other: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
                merge(&mut all, other, if self.replaces { 1 } else { 9 });
            }
        }
        Ok(all.to_string())
    }

    fn restart(&self) -> Result<(), String> {
        self.restarts.set(self.restarts.get() + 1);
        self.fail(Step::Restart)
    }

    fn ready(&self, handler: Option<&str>) -> Result<(), String> {
        let dump = self.dump(Path::new(CONFIG))?;
        let has = Meaning::of(&dump)?.shim().is_some();
        match handler {
            Some(_) if !has => Err("no such runtime".into()),
            Some(_) => self.fail(Step::Ready),
            None => Ok(()),
        }
    }

    fn prove(&self, shim: &Path) -> Result<(), String> {
        assert!(below(self.root.path(), shim).exists(), "{shim:?}");
        self.fail(Step::Prove)
    }
}

impl Machine {
    /// Only with the runtime.
    fn fail(&self, step: Step) -> Result<(), String> {
        let has = Meaning::of(&self.dump(Path::new(CONFIG))?)?
            .shim()
            .is_some();
        if self.fails == Some(step) && has {
            return Err(format!("{step:?} fails"));
        }
        Ok(())
    }
}

fn glob(path: &Path) -> Vec<PathBuf> {
    let name = path
        .file_name()
        .expect("name")
        .to_string_lossy()
        .into_owned();
    let Some(end) = name.strip_prefix('*') else {
        return vec![path.to_owned()];
    };
    let dir = path.parent().expect("parent");
    let mut found: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    found.sort();
    found
}

fn merge(into: &mut Table, from: Table, depth: usize) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) if depth > 0 => {
                merge(old, new, depth - 1);
            }
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";
pub(crate) const DROP_IN: &str = "/etc/containerd/conf.d/wisp.toml";
pub(crate) const IMPORTS: &str = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"] # ours\n\
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = 'io.containerd.runc.v2'";
pub(crate) const PLAIN: &str =
    "version = 2 # two\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause\"";

pub(crate) fn programs(version: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("dir");
    for (name, says) in [(SHIM, "  Version: "), (CLI, "wisp ")] {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{says}{version}'\n")).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    }
    dir
}

pub(crate) struct Silent;

impl Watch for Silent {
    fn before(&mut self, _: Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Ends at a step, counted from 0; says which it was.
pub(crate) struct Crash(pub(crate) usize, pub(crate) Option<Step>);

impl Watch for Crash {
    fn before(&mut self, step: Step) -> ControlFlow<()> {
        if self.0 == 0 {
            self.1 = Some(step);
            return ControlFlow::Break(());
        }
        self.0 -= 1;
        ControlFlow::Continue(())
    }
}

pub(crate) fn machines() -> Vec<(&'static str, Machine)> {
    let with = |text: Option<&str>, replaces| {
        let mut machine = Machine::new();
        machine.replaces = replaces;
        if let Some(text) = text {
            machine.write(CONFIG, text);
        }
        machine
    };
    vec![
        ("no file", with(None, false)),
        ("plain", with(Some(PLAIN), false)),
        ("imports", with(Some(IMPORTS), false)),
        ("imports that replace", with(Some(IMPORTS), true)),
        ("empty", with(Some(""), false)),
    ]
}
