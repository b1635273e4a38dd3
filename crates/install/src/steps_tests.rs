use super::*;
use crate::install::install;
use crate::uninstall::uninstall;
use crate::{CLI, Found, Offline, SHIM};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;
use toml::{Table, Value};

/// A node whose containerd does not run: it reads configurations as containerd
/// 2.1 does, and remembers with which it was started last.
pub(crate) struct Machine {
    root: TempDir,
    restarts: Cell<usize>,
    /// What it does not survive.
    fails: Option<Step>,
    /// Whether a plugin's tables in an imported file replace the others, as
    /// containerd 1.x has it.
    replaces: bool,
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

    fn at(&self, path: &str) -> PathBuf {
        below(self.root.path(), Path::new(path))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().expect("parent")).expect("dir");
        fs::write(self.at(path), text).expect("write");
    }

    fn read(&self, path: &str) -> Option<String> {
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

    fn install(&self, version: &str, watch: &mut dyn Watch) -> Result<Done, InstallError> {
        let dir = programs(version);
        let found = Found::of(dir.path())?;
        install(&self.place(), &found, self, watch)
    }

    fn uninstall(&self, watch: &mut dyn Watch) -> Result<bool, InstallError> {
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

const CONFIG: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/containerd/conf.d/wisp.toml";
const IMPORTS: &str = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"] # ours\n\
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = 'io.containerd.runc.v2'";
const PLAIN: &str =
    "version = 2 # two\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause\"";

pub(crate) fn programs(version: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("dir");
    for (name, says) in [(SHIM, "Version: "), (CLI, "wisp ")] {
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

fn machines() -> Vec<(&'static str, Machine)> {
    let with = |text: Option<&str>, replaces| {
        let mut machine = Machine::new();
        machine.replaces = replaces;
        if let Some(text) = text {
            machine.write(CONFIG, text);
        }
        machine
    };
    let k3s = Machine::new();
    k3s.write(CONFIG, "version = 2\n");
    k3s.write("/etc/os-release", "ID=sles\n");
    vec![
        ("no file", with(None, false)),
        ("plain", with(Some(PLAIN), false)),
        ("imports", with(Some(IMPORTS), false)),
        ("imports that replace", with(Some(IMPORTS), true)),
        ("empty", with(Some(""), false)),
    ]
}

#[test]
fn what_was_installed_is_removed_without_a_trace() {
    for (name, machine) in machines() {
        let before = machine.files();
        let done = machine.install("1.0.0", &mut Silent).expect(name);
        assert!(done.configured, "{name}");
        let file = match name {
            "imports" => DROP_IN,
            _ => CONFIG,
        };
        assert_eq!(done.file, Path::new(file), "{name}");
        assert_eq!(machine.restarts.get(), 1, "{name}");
        let state = status(&machine.place(), &machine).expect(name);
        assert_eq!(state.shim.as_deref(), Some(done.shim.as_path()));
        assert!(state.record.is_some_and(|record| record.proven), "{name}");

        let again = machine.install("1.0.0", &mut Silent).expect(name);
        assert!(!again.configured, "{name}");
        let newer = machine.install("2.0.0", &mut Silent).expect(name);
        assert!(!newer.configured, "{name}");
        assert_eq!(machine.restarts.get(), 1, "{name}");

        assert!(machine.uninstall(&mut Silent).expect(name));
        assert_eq!(machine.files(), before, "{name}");
        assert_eq!(machine.restarts.get(), 2, "{name}");
        assert!(!machine.uninstall(&mut Silent).expect(name));
        assert_eq!(machine.files(), before, "{name}");
    }
}

#[test]
fn whatever_it_is_interrupted_before_it_goes_on_or_back() {
    for (name, _) in machines() {
        let machine = || {
            let mut all = machines();
            all.remove(
                all.iter()
                    .position(|(other, _)| *other == name)
                    .expect("machine"),
            )
            .1
        };
        let mut at = 0;
        loop {
            let (forth, back) = (machine(), machine());
            let before = back.files();
            let mut crash = Crash(at, None);
            let ended = forth.install("1.0.0", &mut crash);
            let Some(step) = crash.1 else {
                ended.expect(name);
                break;
            };
            assert!(
                matches!(ended, Err(InstallError::Interrupted(_))),
                "{name} {step:?}"
            );
            forth.install("1.0.0", &mut Silent).expect(name);
            let state = status(&forth.place(), &forth).expect(name);
            assert!(
                state.record.is_some_and(|record| record.proven),
                "{name} {step:?}"
            );
            let _ = back.install("1.0.0", &mut Crash(at, None));
            back.uninstall(&mut Silent).expect(name);
            assert!(back.files() == before, "{name} {step:?}");
            at += 1;
        }
        assert!(at >= 8, "{name}: {at} steps");
        // And the way back, interrupted.
        for at in 0.. {
            let machine = machine();
            let before = machine.files();
            machine.install("1.0.0", &mut Silent).expect(name);
            let mut crash = Crash(at, None);
            let _ = machine.uninstall(&mut crash);
            if crash.1.is_none() {
                break;
            }
            machine.uninstall(&mut Silent).expect(name);
            assert!(machine.files() == before, "{name} {:?}", crash.1);
        }
    }
}

#[test]
fn what_does_not_work_is_rolled_back() {
    for step in [Step::Restart, Step::Ready, Step::Prove] {
        for (name, mut machine) in machines() {
            machine.fails = Some(step);
            let before = machine.files();
            let error = machine.install("1.0.0", &mut Silent).expect_err(name);
            let InstallError::RolledBack { restored, why, .. } = &error else {
                panic!("{name}: {error}");
            };
            assert_eq!(restored, &Ok(()), "{name}");
            assert!(why.contains(&format!("{step:?} fails")), "{why}");
            assert_eq!(machine.files(), before, "{name} {step:?}");
            assert!(!machine.uninstall(&mut Silent).expect(name));
        }
    }
}

#[test]
fn an_upgrade_that_does_not_work_leaves_the_version_before() {
    for (name, mut machine) in machines() {
        machine.install("1.0.0", &mut Silent).expect(name);
        let before = machine.files();
        machine.fails = Some(Step::Prove);
        let error = machine.install("2.0.0", &mut Silent).expect_err(name);
        assert!(
            matches!(&error, InstallError::Kept { version, .. } if version == "1.0.0"),
            "{name}: {error}"
        );
        assert_eq!(machine.files(), before, "{name}");
        assert_eq!(machine.restarts.get(), 1, "{name}");
        machine.fails = None;
        machine.install("2.0.0", &mut Silent).expect(name);
        let state = status(&machine.place(), &machine).expect(name);
        assert_eq!(state.record.expect("a record").version, "2.0.0");
    }
}

#[test]
fn what_was_interrupted_and_does_not_work_then_is_rolled_back() {
    for at in 0..8 {
        for (name, mut machine) in machines() {
            let before = machine.files();
            let interrupted = machine.install("1.0.0", &mut Crash(at, None));
            assert!(matches!(
                interrupted,
                Err(InstallError::Interrupted(_)) | Ok(_)
            ));
            let Err(InstallError::Interrupted(step)) = interrupted else {
                continue;
            };
            machine.fails = Some(Step::Prove);
            let again = machine.install("1.0.0", &mut Silent);
            // Before the record is the last step at which it was not yet proven.
            match step == Step::Tidy.to_string() {
                true => assert!(again.is_err(), "{name} before {step}"),
                false => {
                    assert!(
                        matches!(
                            again,
                            Err(InstallError::RolledBack {
                                restored: Ok(()),
                                ..
                            })
                        ),
                        "{name} before {step}: {again:?}"
                    );
                    assert_eq!(machine.files(), before, "{name} before {step}");
                }
            }
        }
    }
}

#[test]
fn an_upgrade_interrupted_and_not_working_then_leaves_the_version_before() {
    for at in 0..8 {
        let (name, mut machine) = machines().remove(1);
        machine.install("1.0.0", &mut Silent).expect(name);
        let before = machine.files();
        let interrupted = machine.install("2.0.0", &mut Crash(at, None));
        let Err(InstallError::Interrupted(step)) = interrupted else {
            continue;
        };
        if step == Step::Tidy.to_string() {
            continue;
        }
        machine.fails = Some(Step::Prove);
        let again = machine.install("2.0.0", &mut Silent);
        assert!(
            matches!(&again, Err(InstallError::Kept { version, .. }) if version == "1.0.0"),
            "before {step}: {again:?}"
        );
        assert_eq!(machine.files(), before, "before {step}");
    }
}

#[test]
fn what_is_proven_already_and_fails_stays_and_restarts_nothing() {
    let (name, mut machine) = machines().remove(1);
    machine.install("1.0.0", &mut Silent).expect(name);
    let before = machine.files();
    machine.fails = Some(Step::Prove);
    machine
        .install("1.0.0", &mut Silent)
        .expect_err("no container runs");
    assert_eq!(machine.files(), before);
    machine.fails = None;
    machine.install("1.0.0", &mut Silent).expect("again");
    assert_eq!(machine.restarts.get(), 1);
}

#[test]
fn programs_do_not_move_from_under_their_pods() {
    let (name, machine) = machines().remove(1);
    machine.install("1.0.0", &mut Silent).expect(name);
    let before = machine.files();
    let dir = programs("2.0.0");
    let found = Found::of(dir.path()).expect("programs");
    let place = Place {
        programs: Some("/srv/wisp".into()),
        ..machine.place()
    };
    let error = install(&place, &found, &machine, &mut Silent)
        .expect_err("elsewhere")
        .to_string();
    assert!(
        error.contains("/opt/wisp") && error.contains("/srv/wisp"),
        "{error}"
    );
    assert_eq!(machine.files(), before);
}

#[test]
fn without_containerd_what_was_changed_comes_back_to_the_byte() {
    for at in 0..9 {
        for (name, machine) in machines() {
            let before = machine.files();
            let _ = machine.install("1.0.0", &mut Crash(at, None));
            let place = Place {
                config: PathBuf::new(),
                ..machine.place()
            };
            uninstall(&place, &Offline, &mut Silent).expect(name);
            assert_eq!(machine.files(), before, "{name} at {at}");
        }
    }
}

#[test]
fn an_upgrade_interrupted_anywhere_goes_on_or_is_removed() {
    for at in 0.. {
        let (name, machine) = machines().remove(1);
        let before = machine.files();
        machine.install("1.0.0", &mut Silent).expect(name);
        let mut crash = Crash(at, None);
        let _ = machine.install("2.0.0", &mut crash);
        if crash.1.is_none() {
            assert!(at >= 6, "{at} steps");
            break;
        }
        machine.install("2.0.0", &mut Silent).expect(name);
        let state = status(&machine.place(), &machine).expect(name);
        assert!(
            state
                .record
                .is_some_and(|r| r.proven && r.version == "2.0.0")
        );
        machine.uninstall(&mut Silent).expect(name);
        assert_eq!(machine.files(), before, "{:?}", crash.1);
    }
}

#[test]
fn no_place_for_programs_leaves_no_trace() {
    let machine = Machine::new();
    machine.write(CONFIG, PLAIN);
    machine.write("/opt/wisp", "a file");
    machine.write("/usr/local/lib/wisp", "a file");
    machine.write("/var/lib/wisp/programs", "a file");
    let before = machine.files();
    let error = machine
        .install("1.0.0", &mut Silent)
        .expect_err("no place")
        .to_string();
    for place in ["/opt/wisp", "/usr/local/lib/wisp", "/var/lib/wisp/programs"] {
        assert!(error.contains(place), "{error}");
    }
    assert_eq!(machine.files(), before);
    assert_eq!(machine.restarts.get(), 0);
}

#[test]
fn what_the_owner_changes_meanwhile_stays() {
    let machine = Machine::new();
    machine.write(CONFIG, PLAIN);
    machine.install("1.0.0", &mut Silent).expect("install");
    let text = machine
        .read(CONFIG)
        .expect("file")
        .replace("\"pause\"", "\"mine\"");
    machine.write(CONFIG, &text);
    machine.install("1.0.0", &mut Silent).expect("again");
    machine.uninstall(&mut Silent).expect("uninstall");
    let left = machine.read(CONFIG).expect("file");
    assert_eq!(left.trim_end(), PLAIN.replace("\"pause\"", "\"mine\""));
    // Also what came after the last run.
    machine.install("1.0.0", &mut Silent).expect("install");
    let text = machine.read(CONFIG).expect("file") + "[debug]\nlevel = \"info\"\n";
    machine.write(CONFIG, &text);
    machine.uninstall(&mut Silent).expect("uninstall");
    let left = machine.read(CONFIG).expect("file");
    assert!(
        left.ends_with("[debug]\nlevel = \"info\"\n") && !left.contains("wisp"),
        "{left}"
    );
}

#[test]
fn templates_get_their_lines_and_lose_them() {
    const DIR: &str = "/var/lib/rancher/k3s/agent/etc/containerd";
    let rendered = format!("{DIR}/config.toml");
    let template = format!("{DIR}/config-v3.toml.tmpl");
    let own = "{{ template \"base\" . }}\n# mine\n[plugins.x]\na = 1";
    for original in [None, Some(own)] {
        let machine = Machine::new();
        machine.write(&rendered, IMPORTS);
        if let Some(own) = original {
            machine.write(&template, own);
        }
        let before = machine.files();
        let place = Place {
            config: rendered.clone().into(),
            ..machine.place()
        };
        let dir = programs("1.0.0");
        let found = Found::of(dir.path()).expect("programs");
        // What is rendered from it comes with a restart that is not here.
        let error = install(&place, &found, &machine, &mut Crash(4, None));
        assert!(matches!(error, Err(InstallError::Interrupted(_))));
        let text = machine.read(&template).expect("template");
        assert!(text.starts_with("{{ template \"base\" . }}\n"), "{text}");
        assert!(!text.contains("version"), "{text}");
        assert!(text.contains(".containerd.runtimes.wisp]\n"), "{text}");
        assert_eq!(text.matches("# begin wisp").count(), 1);
        assert_eq!(machine.read(&rendered).as_deref(), Some(IMPORTS));
        uninstall(&place, &machine, &mut Silent).expect("uninstall");
        assert_eq!(machine.files(), before);
    }
}

#[test]
fn what_a_configuration_is_made_from_is_changed_in_its_place() {
    const DIR: &str = "/var/snap/microk8s/7/args";
    let machine = Machine::new();
    let config = format!("{DIR}/containerd.toml");
    let source = format!("{DIR}/containerd-template.toml");
    machine.write(&config, "version = 2\nroot = \"/data\"\n");
    machine.write(&source, "version = 2\nroot = \"${SNAP_DATA}\"\n");
    let before = machine.files();
    let place = Place {
        config: config.clone().into(),
        ..machine.place()
    };
    let dir = programs("1.0.0");
    let found = Found::of(dir.path()).expect("programs");
    let error = install(&place, &found, &machine, &mut Crash(4, None));
    assert!(matches!(error, Err(InstallError::Interrupted(_))));
    let text = machine.read(&source).expect("source");
    assert!(
        text.contains("${SNAP_DATA}") && text.contains("runtimes.wisp]"),
        "{text}"
    );
    assert!(!machine.read(&config).expect("config").contains("wisp"));
    uninstall(&place, &machine, &mut Silent).expect("uninstall");
    assert_eq!(machine.files(), before);
}

#[test]
fn what_a_distribution_merges_gets_one_more() {
    const MANAGED: &str = "# k0s_managed=true\n# a placeholder\nversion = 3\nimports = [\n\t\"/run/k0s/containerd-cri.toml\",\n]\n";
    let machine = Machine::new();
    let config = "/etc/k0s/containerd.toml";
    machine.write(config, MANAGED);
    machine.write(
        "/run/k0s/containerd-cri.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n",
    );
    machine.write("/etc/k0s/containerd.d/mine.toml", "version = 3\n");
    let before = machine.files();
    let place = Place {
        config: config.into(),
        ..machine.place()
    };
    let dir = programs("1.0.0");
    let found = Found::of(dir.path()).expect("programs");
    // k0s merges at the restart, which is not here.
    let error = install(&place, &found, &machine, &mut Crash(4, None));
    assert!(
        matches!(error, Err(InstallError::Interrupted(_))),
        "{error:?}"
    );
    let text = machine
        .read("/etc/k0s/containerd.d/wisp.toml")
        .expect("a file of ours");
    assert!(
        text.starts_with("version = 3\n") && text.contains("runtimes.wisp]"),
        "{text}"
    );
    assert_eq!(machine.read(config).as_deref(), Some(MANAGED));
    uninstall(&place, &machine, &mut Silent).expect("uninstall");
    assert_eq!(machine.files(), before);
    // Where its owner has taken it over, it is a configuration like any other.
    machine.write(config, &MANAGED.replace("k0s_managed=true", "mine"));
    let error = install(&place, &found, &machine, &mut Crash(4, None));
    assert!(
        matches!(error, Err(InstallError::Interrupted(_))),
        "{error:?}"
    );
    assert!(machine.read(config).expect("it").contains("runtimes.wisp]"));
}

#[test]
fn nodes_that_cannot_be_changed_are_left_alone() {
    let machine = Machine::new();
    machine.write("/etc/os-release", "ID=bottlerocket\n");
    let before = machine.files();
    let error = machine
        .install("1.0.0", &mut Silent)
        .expect_err("immutable")
        .to_string();
    assert!(error.contains("Bottlerocket"), "{error}");
    assert_eq!(machine.files(), before);
}

#[test]
fn bad_configurations_are_named_and_left_alone() {
    let usual = "[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd = 7\n";
    for (text, says) in [
        ("version = ", "config.toml"),
        (&format!("version = 2\n{usual}"), "containerd is integer"),
        ("version = 9\n", "version 9"),
    ] {
        let machine = Machine::new();
        machine.write(CONFIG, text);
        let before = machine.files();
        let error = machine
            .install("1.0.0", &mut Silent)
            .expect_err(text)
            .to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(machine.files(), before, "{text}");
        assert_eq!(machine.restarts.get(), 0);
    }
}
