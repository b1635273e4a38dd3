//! Configurations as they are found on nodes, of every layout and schema: what
//! is done to each, and undone.

use std::path::{Path, PathBuf};

use crate::edit::{self, Runtime};
use crate::error::InstallError;
use crate::layout::{self, below};
use crate::machine::{Crash, Machine, Silent, programs};
use crate::meaning::Meaning;
use crate::steps::Place;
use crate::{Found, RUNTIME_TYPE, install, uninstall};

/// Where a node has it, and what is in it.
macro_rules! corpus {
    ($($path:literal $name:literal),* $(,)?) => {
        [$(($path, $name, include_str!(concat!("corpus/", $name)))),*]
    };
}

const USUAL: &str = "/etc/containerd/config.toml";

const ALL: [(&str, &str, &str); 16] = corpus![
    "/etc/containerd/config.toml" "default-1.6.toml",
    "/etc/containerd/config.toml" "default-2.1.toml",
    "/etc/containerd/config.toml" "v1.toml",
    "/etc/containerd/config.toml" "v4.toml",
    "/etc/containerd/config.toml" "kubeadm-v2.toml",
    "/etc/containerd/config.toml" "kind-v2.toml",
    "/etc/containerd/config.toml" "minikube-v2.toml",
    "/etc/containerd/config.toml" "eks-v2.toml",
    "/etc/containerd/config.toml" "gke-ubuntu-v2.toml",
    "/etc/containerd/config.toml" "aks-v2.toml",
    "/etc/containerd/config.toml" "flatcar-v2.toml",
    "/etc/containerd/config.toml" "edited-v3.toml",
    "/etc/containerd/config.toml" "inline-v3.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml" "k3s-v2.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml" "k3s-v3.toml",
    "/var/snap/microk8s/7/args/containerd-template.toml" "microk8s-template-v2.toml",
];

const SHIM: Runtime<'_> = Runtime {
    shim: "/opt/wisp/bin/containerd-shim-wisp-v1",
    by_type: false,
};

/// As [`Place`] has it: where the running containerd's configuration is.
fn config(path: &str) -> PathBuf {
    PathBuf::from(path.replace("containerd-template.toml", "containerd.toml"))
}

/// A node with this configuration, and what its distribution makes of it.
fn node(path: &str, text: &str) -> (Machine, Place) {
    let machine = Machine::new();
    machine.write(path, text);
    let config = config(path);
    if config != Path::new(path) {
        machine.write(&config.to_string_lossy(), text);
    }
    let place = Place {
        config,
        ..machine.place()
    };
    (machine, place)
}

fn found(version: &str) -> (tempfile::TempDir, Found) {
    let dir = programs(version);
    let found = Found::of(dir.path()).expect("programs");
    (dir, found)
}

/// Whether what we change is not yet what containerd reads.
fn is_rendered(place: &Place) -> bool {
    !matches!(
        layout::of(&place.root, &place.config).way,
        layout::Way::Config | layout::Way::Merged(_)
    )
}

#[test]
fn each_takes_the_runtime_and_gives_it_back() {
    for (_, name, text) in ALL {
        let changed = edit::with(text, SHIM).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let (old, new) = (
            Meaning::of(text).expect(name),
            Meaning::of(&changed).expect(name),
        );
        assert_eq!(old.differs(&new), None, "{name}");
        assert_eq!(new.shim(), Some(SHIM.shim), "{name}");
        assert!(changed.contains(RUNTIME_TYPE), "{name}");
        // Every line of the owner's is there, and in its order.
        if name != "inline-v3.toml" {
            let mut lines = changed.lines();
            for line in text.lines() {
                assert!(lines.any(|found| found == line), "{name}: {line}");
            }
        }
        assert_eq!(edit::with(&changed, SHIM).as_ref(), Ok(&changed), "{name}");
        let back = edit::without(&changed).expect(name);
        assert_eq!(back, text, "{name}");
    }
}

#[test]
fn each_is_installed_upgraded_and_uninstalled_to_the_byte() {
    for (path, name, text) in ALL {
        let (machine, place) = node(path, text);
        let before = machine.files();
        let ((_one, first), (_two, second)) = (found("1.0.0"), found("2.0.0"));
        if is_rendered(&place) {
            // The distribution renders it with the restart, which is not here.
            let ended = install(&place, &first, &machine, &mut Crash(4, None));
            assert!(matches!(ended, Err(InstallError::Interrupted(_))), "{name}");
        } else {
            let done = install(&place, &first, &machine, &mut Silent).expect(name);
            assert!(done.configured, "{name}");
            let again = install(&place, &first, &machine, &mut Silent).expect(name);
            assert!(!again.configured, "{name}");
            let newer = install(&place, &second, &machine, &mut Silent).expect(name);
            assert!(!newer.configured, "{name}");
        }
        assert_ne!(machine.files(), before, "{name}");
        uninstall(&place, &machine, &mut Silent).expect(name);
        assert_eq!(machine.files(), before, "{name}");
    }
}

#[test]
fn each_is_interrupted_anywhere_and_comes_back_to_the_byte() {
    for (path, name, text) in ALL {
        for at in 0.. {
            let (machine, place) = node(path, text);
            let before = machine.files();
            let (_dir, programs) = found("1.0.0");
            let mut crash = Crash(at, None);
            let _ = install(&place, &programs, &machine, &mut crash);
            let Some(step) = crash.1 else {
                break;
            };
            uninstall(&place, &machine, &mut Silent).expect(name);
            assert!(machine.files() == before, "{name} before {step:?}");
        }
    }
}

#[test]
fn a_huge_one_is_changed_as_well() {
    let mut text = include_str!("corpus/kubeadm-v2.toml").to_owned();
    for number in 0..5000 {
        text += &format!(
            "\n# mirror {number}\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"r{number}\"]\n  endpoint = [\"https://r{number}\"]\n"
        );
    }
    let (machine, place) = node(USUAL, &text);
    let before = machine.files();
    let (_dir, programs) = found("1.0.0");
    install(&place, &programs, &machine, &mut Silent).expect("installed");
    uninstall(&place, &machine, &mut Silent).expect("removed");
    assert!(machine.files() == before);
}

#[test]
fn what_is_no_configuration_is_named_and_nothing_changes() {
    let kubeadm = include_str!("corpus/kubeadm-v2.toml");
    let cut = &kubeadm[..kubeadm.len() / 2 + 7];
    let table = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]";
    let twice = format!("{kubeadm}\n{table}\n");
    for (text, why) in [
        (cut, "cut off"),
        (&twice, "a table twice"),
        ("version = 2\nplugins = []\n", "no table of plugins"),
        ("\u{feff}\u{0}binary", "no text"),
        ("version = 17\n", "a schema of the future"),
    ] {
        let (machine, place) = node(USUAL, text);
        let before = machine.files();
        let (_dir, programs) = found("1.0.0");
        let error = install(&place, &programs, &machine, &mut Silent)
            .err()
            .unwrap_or_else(|| panic!("{why} was taken"))
            .to_string();
        assert!(error.contains("config.toml"), "{why}: {error}");
        assert_eq!(machine.files(), before, "{why}");
    }
    // Not text at all.
    let (machine, place) = node(USUAL, "");
    std::fs::write(below(&place.root, Path::new(USUAL)), [0xff, 0xfe, 0x00]).expect("write");
    let before = machine.files();
    let (_dir, programs) = found("1.0.0");
    install(&place, &programs, &machine, &mut Silent).expect_err("bytes");
    assert_eq!(machine.files(), before);
}

#[test]
fn each_system_that_cannot_be_changed_says_what_to_do() {
    for (id, says) in [
        ("talos", "system extension"),
        ("bottlerocket", "another system"),
        ("cos", "UBUNTU_CONTAINERD"),
    ] {
        let (machine, place) = node(USUAL, include_str!("corpus/kubeadm-v2.toml"));
        machine.write("/etc/os-release", &format!("ID={id}\n"));
        let before = machine.files();
        let (_dir, programs) = found("1.0.0");
        let error = install(&place, &programs, &machine, &mut Silent)
            .expect_err(id)
            .to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(machine.files(), before, "{id}");
    }
    // One that nobody has heard of has a containerd like others.
    let (machine, place) = node(USUAL, include_str!("corpus/kubeadm-v2.toml"));
    machine.write("/etc/os-release", "ID=newcomer\n");
    let (_dir, programs) = found("1.0.0");
    install(&place, &programs, &machine, &mut Silent).expect("plain");
}
