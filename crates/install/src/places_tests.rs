//! What is changed on which nodes, and what is not.

use crate::install::install;
use crate::machine::{CONFIG, Crash, IMPORTS, Machine, PLAIN, Silent, programs};
use crate::steps::Place;
use crate::uninstall::uninstall;
use crate::{Found, InstallError};

/// Installs up to the restart: what is rendered from a changed file comes with one that
/// is not here.
fn change(machine: &Machine, place: &Place) {
    let dir = programs("1.0.0");
    let found = Found::of(dir.path()).expect("programs");
    let error = install(place, &found, machine, &mut Crash(4, None));
    assert!(matches!(error, Err(InstallError::Interrupted(_))));
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
        change(&machine, &place);
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
    change(&machine, &place);
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
