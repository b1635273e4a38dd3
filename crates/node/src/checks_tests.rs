use std::path::PathBuf;

use super::*;
use crate::finding::Status;

const DUMPS: [&str; 2] = [
    include_str!("fixtures/containerd-1.6.toml"),
    include_str!("fixtures/containerd-2.1.toml"),
];

fn daemon() -> Daemon {
    Daemon {
        pid: 7,
        program: "/usr/bin/containerd".into(),
        name: "containerd".into(),
        config: "/etc/containerd/config.toml".into(),
        search: Some("/nowhere".into()),
        settings: None,
    }
}

fn good_kernel() -> Kernel {
    Kernel {
        release: "6.8.0".into(),
        openat2: true,
        mounts_by_descriptor: true,
        pidfd: true,
        clone_into_cgroup: true,
        memfd: true,
        seccomp: true,
        user_namespaces: true,
        overlayfs: true,
        pagemap_scan: true,
        landlock: Some(4),
    }
}

fn systemd() -> Cgroups {
    Cgroups {
        version: Some(2),
        controllers: ["cpu", "cpuset", "memory", "pids"].map(String::from).into(),
        systemd: true,
    }
}

/// Whatever is not well has a way out, and what is has none.
fn sound(findings: &[Finding]) {
    for finding in findings {
        let has = finding.remedy.as_ref().is_some_and(|text| !text.is_empty());
        assert_eq!(has, finding.status != Status::Ok, "{finding:?}");
        assert!(!finding.found.contains('\n'), "{finding:?}");
    }
}

#[test]
fn a_good_kernel_is_all_right() {
    let found = kernel(&good_kernel());
    sound(&found);
    assert!(found.iter().all(|finding| finding.status == Status::Ok));
}

#[test]
fn what_a_kernel_lacks_is_named() {
    let found = kernel(&Kernel {
        release: "5.4.0".into(),
        openat2: false,
        seccomp: false,
        overlayfs: false,
        user_namespaces: false,
        pagemap_scan: false,
        landlock: None,
        ..good_kernel()
    });
    sound(&found);
    let status: Vec<Status> = found.iter().map(|finding| finding.status).collect();
    assert_eq!(
        status,
        [
            Status::Failed,
            Status::Failed,
            Status::Warning,
            Status::Warning,
            Status::Ok
        ]
    );
    assert!(found[0].found.contains("openat2"), "{:?}", found[0]);
    assert!(found[4].found.contains("PAGEMAP_SCAN"), "{:?}", found[4]);
}

#[test]
fn a_new_kernel_without_calls_is_told_apart_from_an_old_one() {
    let found = kernel(&Kernel {
        pidfd: false,
        ..good_kernel()
    });
    let remedy = found[0].remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains("filters system calls"), "{remedy}");
}

#[test]
fn controllers_that_are_missing_are_named() {
    assert_eq!(cgroups(&systemd()).status, Status::Ok);
    let mut some = systemd();
    some.controllers.retain(|name| name != "memory");
    let found = cgroups(&some);
    assert_eq!(found.status, Status::Warning);
    assert!(found.found.contains("memory"), "{found:?}");
    some.version = None;
    assert_eq!(cgroups(&some).status, Status::Failed);
}

#[test]
fn versions_of_containerd_are_told_apart() {
    let at = Containerd {
        socket: "/run/c.sock".into(),
        daemon: None,
    };
    for (version, status) in [
        ("1.6.20~ds1", Status::Ok),
        ("v2.1.9", Status::Ok),
        ("1.5.9", Status::Failed),
    ] {
        let found = containerd(&at, Ok(version));
        assert_eq!(found.status, status, "{found:?}");
        assert!(found.found.contains(version), "{found:?}");
    }
    assert_eq!(containerd(&at, Err("why")).status, Status::Failed);
    let error = std::io::Error::from(std::io::ErrorKind::NotFound);
    sound(&[unreachable(Path::new("/none"), &error)]);
}

#[test]
fn a_configuration_with_wisp_is_all_right_in_both_schemas() {
    for dump in DUMPS {
        let found = configuration(&daemon(), &Settings::parse(dump).expect("valid"));
        sound(&found);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].status, Status::Ok, "{found:?}");
    }
}

#[test]
fn what_a_configuration_lacks_can_be_pasted_into_it() {
    for dump in DUMPS {
        let without = dump.replace(RUNTIME_TYPE, "io.containerd.runc.v2");
        let settings = Settings::parse(&without).expect("valid");
        let found = configuration(&daemon(), &settings);
        sound(&found);
        assert_eq!(found[0].status, Status::Failed);
        assert!(found[0].found.contains("called wisp"), "{found:?}");
        let remedy = found[0].remedy.as_deref().unwrap_or_default();
        let pasted = remedy.split_once(":\n").expect("a snippet").1;
        let pasted = format!("version = {}\n{pasted}", settings.schema);
        let found = configuration(&daemon(), &Settings::parse(&pasted).expect("valid"));
        assert_eq!(found[0].status, Status::Ok, "{found:?}");

        let unheard = dump.replace("io.wisp.*", "io.other.*");
        let found = configuration(&daemon(), &Settings::parse(&unheard).expect("valid"));
        sound(&found);
        assert_eq!(found[0].status, Status::Failed);
        assert!(found[0].found.contains("annotations"), "{found:?}");
    }
    let none = Settings::parse("version = 2\ndisabled_plugins = [\"cri\"]").expect("valid");
    let found = configuration(&daemon(), &none);
    sound(&found);
    assert_eq!(found[0].status, Status::Warning);
}

#[test]
fn cgroup_drivers_must_agree() {
    let kubelet = |driver: &str| Kubelet {
        path: PathBuf::from("/k.yaml"),
        cgroup_driver: driver.into(),
    };
    for dump in DUMPS {
        let settings = Settings::parse(dump).expect("valid");
        let status = |driver: &str, cgroups: &Cgroups| {
            let found = cgroup_driver(&kubelet(driver), &settings, cgroups).expect("pods");
            sound(std::slice::from_ref(&found));
            found.status
        };
        assert_eq!(status("systemd", &systemd()), Status::Ok);
        assert_eq!(status("cgroupfs", &systemd()), Status::Warning);
        let without = Cgroups {
            systemd: false,
            ..systemd()
        };
        assert_eq!(status("systemd", &without), Status::Failed);
    }
}

#[test]
fn a_shim_that_is_missing_or_of_another_version_is_said_so() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("dir");
    let mut containerd = daemon();
    containerd.program = dir.path().join("containerd");
    let missing = shim(Some(&containerd), None, "1.2.3");
    assert_eq!(missing.status, Status::Failed);
    assert!(
        missing
            .remedy
            .as_deref()
            .is_some_and(|text| text.contains("/nowhere"))
    );

    containerd.search = Some(dir.path().into());
    let path = dir.path().join(SHIM);
    std::fs::write(&path, "#!/bin/sh\necho '  Version: 1.2.3'\n").expect("write");
    let found = shim(Some(&containerd), None, "1.2.3");
    assert!(found.found.contains("cannot be executed"), "{found:?}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let found = shim(Some(&containerd), None, "1.2.3");
    assert_eq!(found.status, Status::Ok, "{found:?}");
    let found = shim(Some(&containerd), None, "2.0.0");
    assert_eq!(found.status, Status::Failed);
    assert!(found.found.contains("1.2.3") && found.found.contains("2.0.0"));

    let runtime = Runtime {
        runtime_path: "/nowhere/shim".into(),
        ..Runtime::default()
    };
    let found = shim(Some(&containerd), Some(&runtime), "1.2.3");
    assert!(found.found.contains("/nowhere/shim"), "{found:?}");
    sound(&[found]);
}
