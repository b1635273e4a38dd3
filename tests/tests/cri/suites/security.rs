//! Security contexts: users, capabilities, seccomp, namespaces, sysctls.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use wisp_tests::Version;
use wisp_tests::cri::api::security_profile::ProfileType;
use wisp_tests::cri::api::{IdMapping, NamespaceMode, SecurityProfile, UserNamespace};
use wisp_tests::cri::{Container, Stream, Test};
use wisp_tests::http;

pub fn cases() -> Vec<Case> {
    let mut cases = super::cases(
        "security",
        &[
            (
                "user, group and supplemental groups are the process's",
                users,
            ),
            (
                "files are opened with the user's and group's rights",
                file_rights,
            ),
            ("an fsGroup's volume is written by its group", fs_group),
            (
                "RuntimeDefault is a filter for native programs and guests",
                runtime_default,
            ),
            (
                "a Localhost profile binds native programs and guests",
                localhost_profile,
            ),
            ("a profile that is not there is an error", no_profile),
            (
                "a guest has no capability, a native program its own",
                capabilities,
            ),
            ("port 80 without root needs NET_BIND_SERVICE", bind_service),
            (
                "port 80 without root works with the pod's sysctl",
                unprivileged_ports,
            ),
            (
                "allowPrivilegeEscalation: false holds for both",
                no_new_privileges,
            ),
            (
                "containers of a pod share its processes when it says so",
                shared_processes,
            ),
            (
                "containers of a pod do not see each other's processes",
                own_processes,
            ),
            ("sysctls of the pod hold in its containers", sysctls),
            ("a privileged guest has no more than any other", privileged),
        ],
    );
    let mut user_namespace = super::cases(
        "security",
        &[(
            "a pod with a user namespace of its own is refused",
            user_namespace,
        )],
    );
    for case in &mut user_namespace {
        // 1.6 does not know the field.
        case.on = |version| version != Version::V1_6;
    }
    cases.append(&mut user_namespace);
    cases
}

/// What `/proc` says of a container's first process.
fn proc_status(container: &Container<'_, '_, '_>, field: &str) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid()?))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let words: Vec<&str> = line
        .with_context(|| format!("no {field} in {status}"))?
        .split_whitespace()
        .collect();
    Ok(words.join(" "))
}

fn users(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("users").run()?;
    for (guest, args) in [
        ("tour", &["sleep", "600000"][..]),
        ("http-02", &[]),
        ("busybox", &["sleep", "600"]),
    ] {
        let image = match guest {
            "busybox" => test.busybox()?,
            guest => test.image(guest)?,
        };
        let container = pod
            .container(guest, &image)
            .args(args)
            .user(1000, 2000)
            .security(|security| security.supplemental_groups = vec![3000, 4000])
            .start()?;
        for (field, expected) in [
            ("Uid", "1000 1000 1000 1000"),
            ("Gid", "2000 2000 2000 2000"),
        ] {
            let found = proc_status(&container, field)?;
            ensure!(found == expected, "{guest}: {field} {found}");
        }
        // Whether the primary group is among them differs between versions of
        // containerd and does not matter.
        let groups = proc_status(&container, "Groups")?;
        let others: Vec<&str> = groups.split(' ').filter(|group| *group != "2000").collect();
        ensure!(others == ["3000", "4000"], "{guest}: {groups}");
        container.stop(0)?;
    }
    Ok(())
}

fn file_rights(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("rights").run()?;
    let volume = test.volume("files")?;
    for (name, mode, user, group) in [
        ("user", 0o400, 1000, 0),
        ("group", 0o040, 0, 2000),
        ("supplemental", 0o040, 0, 3000),
        ("nobody", 0o400, 0, 0),
    ] {
        let path = volume.join(name);
        fs::write(&path, "x")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        nix::unistd::chown(&path, Some(user.into()), Some(group.into()))?;
    }
    let image = test.image("tour")?;
    let run = |name: &str| {
        pod.container(name, &image)
            .read_only(&volume, "/files")
            .args(&["read", &format!("/files/{name}")])
            .user(1000, 2000)
            .security(|security| security.supplemental_groups = vec![3000])
    };
    for name in ["user", "group", "supplemental"] {
        run(name).succeeds().context(name)?;
    }
    run("nobody").fails()?;
    Ok(())
}

fn fs_group(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("fs-group").run()?;
    // kubelet gives the volume to the group and the group to the process.
    let volume = test.volume("shared")?;
    nix::unistd::chown(&volume, None, Some(5000.into()))?;
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o2775))?;
    let image = test.image("tour")?;
    let run = |name: &str, groups: &[i64]| {
        pod.container(name, &image)
            .volume(&volume, "/shared")
            .args(&["write", &format!("/shared/{name}"), "text"])
            .user(1000, 1000)
            .security(|security| security.supplemental_groups = groups.to_vec())
    };
    run("member", &[5000]).succeeds()?;
    let written = fs::metadata(volume.join("member"))?;
    ensure!(
        (written.uid(), written.gid()) == (1000, 5000),
        "{}:{}",
        written.uid(),
        written.gid()
    );
    run("stranger", &[]).fails()?;
    Ok(())
}

fn profile(kind: ProfileType, path: &str) -> SecurityProfile {
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: path.to_owned(),
    }
}

fn runtime_default(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("default").run()?;
    for (name, image, args) in [
        ("guest", test.image("tour")?, ["sleep", "600000"]),
        ("native", test.busybox()?, ["sleep", "600"]),
    ] {
        let container = pod
            .container(name, &image)
            .args(&args)
            .seccomp(profile(ProfileType::RuntimeDefault, ""))
            .start()?;
        let mode = proc_status(&container, "Seccomp")?;
        ensure!(mode == "2", "{name}: {mode}");
        container.stop(0)?;
    }
    let server = pod
        .container("server", &test.image("http-03")?)
        .seccomp(profile(ProfileType::RuntimeDefault, ""))
        .start()?;
    let address: SocketAddr = format!("{}:8080", pod.address()?).parse()?;
    ensure!(http::get_from(address, "/")?.status == 200, "no answer");
    let script = "busybox unshare true || echo refused";
    let said = pod
        .container("refused", &test.busybox()?)
        .args(&["sh", "-c", script])
        .seccomp(profile(ProfileType::RuntimeDefault, ""))
        .succeeds()?;
    ensure!(said == "refused\n", "{said:?}");
    server.stop(10)
}

fn localhost_profile(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("localhost").run()?;
    let volume = test.volume("data")?;
    let file = test.file(
        "no-mkdir.json",
        r#"{
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]
        }"#,
    )?;
    let path = file.display().to_string();
    for (name, image) in [("guest", test.image("tour")?), ("native", test.busybox()?)] {
        let run = |with: &str| {
            pod.container(&format!("{name}-{with}"), &image)
                .volume(&volume, "/data")
                .args(&["mkdir", &format!("/data/{name}-{with}")])
        };
        run("without").succeeds()?;
        run("with")
            .seccomp(profile(ProfileType::Localhost, &path))
            .fails()?;
        ensure!(volume.join(format!("{name}-without")).exists(), "{name}");
        ensure!(!volume.join(format!("{name}-with")).exists(), "{name}");
    }
    Ok(())
}

fn no_profile(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("missing").run()?;
    let created = pod
        .container("app", &test.image("hello")?)
        .seccomp(profile(ProfileType::Localhost, "/no/such/profile.json"))
        .create();
    let error = created.err().context("it was created")?;
    ensure!(
        format!("{error:#}").contains("/no/such/profile.json"),
        "{error:#}"
    );
    Ok(())
}

/// The bit of CAP_NET_BIND_SERVICE, CAP_SYS_TIME, CAP_CHOWN.
const BIND_SERVICE: u64 = 1 << 10;
const SYS_TIME: u64 = 1 << 25;
const CHOWN: u64 = 1;

fn effective(container: &Container<'_, '_, '_>) -> Result<u64> {
    Ok(u64::from_str_radix(&proc_status(container, "CapEff")?, 16)?)
}

fn capabilities(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("capabilities").run()?;
    let native = |name: &str, add: &[&str], drop: &[&str]| -> Result<u64> {
        let container = pod
            .container(name, &test.busybox()?)
            .args(&["sleep", "600"])
            .capabilities(add, drop)
            .start()?;
        let found = effective(&container)?;
        container.stop(0)?;
        Ok(found)
    };
    let usual = native("usual", &[], &[])?;
    ensure!(
        usual & (BIND_SERVICE | CHOWN | SYS_TIME) == BIND_SERVICE | CHOWN,
        "{usual:x}"
    );
    let changed = native("changed", &["SYS_TIME"], &["CHOWN"])?;
    ensure!(
        changed & (BIND_SERVICE | CHOWN | SYS_TIME) == BIND_SERVICE | SYS_TIME,
        "{changed:x}"
    );
    let none = native("none", &[], &["ALL"])?;
    ensure!(none == 0, "{none:x}");
    for (guest, args) in [("tour", &["sleep", "600000"][..]), ("http-02", &[])] {
        let container = pod
            .container(guest, &test.image(guest)?)
            .args(args)
            .capabilities(&["SYS_TIME", "SYS_ADMIN"], &[])
            .start()?;
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
            let found = u64::from_str_radix(&proc_status(&container, set)?, 16)?;
            ensure!(found == 0, "{guest}: {set} {found:x}");
        }
        container.stop(0)?;
    }
    Ok(())
}

fn bind_service(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("port-80")
        .annotation("io.wisp.http.listen", "0.0.0.0:80")
        // containerd 2.1 lets everybody have every port.
        .sysctl("net.ipv4.ip_unprivileged_port_start", "1024")
        .run()?;
    let address: SocketAddr = format!("{}:80", pod.address()?).parse()?;
    let image = test.image("http-02")?;
    let run = |name: &str, add: &[&str], drop: &[&str]| {
        pod.container(name, &image)
            .user(1000, 1000)
            .capabilities(add, drop)
    };
    let refused = run("without", &[], &["ALL"]).start();
    let error = refused.err().context("it listens")?;
    ensure!(
        format!("{error:#}")
            .to_lowercase()
            .contains("permission denied"),
        "{error:#}"
    );
    let server = run("with", &["NET_BIND_SERVICE"], &["ALL"]).start()?;
    ensure!(http::get_from(address, "/")?.status == 200, "no answer");
    // That and nothing else.
    let found = effective(&server)?;
    ensure!(found == BIND_SERVICE, "{found:x}");
    server.stop(10)
}

fn unprivileged_ports(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("port-80")
        .annotation("io.wisp.http.listen", "0.0.0.0:80")
        .sysctl("net.ipv4.ip_unprivileged_port_start", "0")
        .run()?;
    let server = pod
        .container("app", &test.image("http-02")?)
        .user(1000, 1000)
        .capabilities(&[], &["ALL"])
        .start()?;
    let address: SocketAddr = format!("{}:80", pod.address()?).parse()?;
    ensure!(http::get_from(address, "/")?.status == 200, "no answer");
    server.stop(10)
}

fn no_new_privileges(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("no-new-privileges").run()?;
    for (name, image, args, asked) in [
        ("guest", test.image("tour")?, ["sleep", "600000"], false),
        ("native", test.busybox()?, ["sleep", "600"], true),
    ] {
        let container = pod
            .container(name, &image)
            .args(&args)
            .security(|security| security.no_new_privs = asked)
            .start()?;
        let found = proc_status(&container, "NoNewPrivs")?;
        ensure!(found == "1", "{name}: {found}");
        container.stop(0)?;
    }
    Ok(())
}

fn shared_processes(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("shared").shared_processes().run()?;
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "600000"])
        .start()?;
    guest.says("sleeping")?;
    let processes = pod
        .container("native", &test.busybox()?)
        .args(&["sh", "-c", "cat /proc/1/comm; ls /proc"])
        .start()?;
    processes.wait()?;
    let said = processes.text(Stream::Stdout)?;
    ensure!(said.starts_with("pause\n"), "{said}");
    // pause, the guest, and what lists them.
    let count = said
        .lines()
        .filter(|name| name.parse::<u32>().is_ok())
        .count();
    ensure!(count >= 3, "{said}");
    // One process that ends takes no other with it, and its container is over.
    guest.stop(5)?;
    let status = guest.status()?;
    ensure!(status.exit_code == 143, "{status:?}");
    ensure!(pod.is_ready()?, "the pod is not ready");
    Ok(())
}

fn own_processes(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("apart").run()?;
    pod.container("guest", &test.image("tour")?)
        .args(&["sleep", "600000"])
        .start()?
        .says("sleeping")?;
    let said = pod
        .container("native", &test.busybox()?)
        .args(&["sh", "-c", "echo $$; ls /proc"])
        .succeeds()?;
    ensure!(said.starts_with("1\n"), "{said}");
    let count = said
        .lines()
        .filter(|name| name.parse::<u32>().is_ok())
        .count();
    ensure!(count <= 3, "{said}");
    Ok(())
}

fn sysctls(test: &Test<'_>) -> Result<()> {
    let wanted = [
        ("net.ipv4.ip_local_port_range", "20000\t20100"),
        ("kernel.shm_rmid_forced", "1"),
        ("net.ipv4.tcp_syncookies", "0"),
    ];
    let pod = wanted
        .iter()
        .fold(test.pod("sysctls"), |pod, (name, value)| {
            pod.sysctl(name, value)
        })
        .run()?;
    let files: Vec<String> = wanted
        .iter()
        .map(|(name, _)| format!("/proc/sys/{}", name.replace('.', "/")))
        .collect();
    let mut args = vec!["cat"];
    args.extend(files.iter().map(String::as_str));
    let said = pod
        .container("native", &test.busybox()?)
        .args(&args)
        .succeeds()?;
    let expected: Vec<&str> = wanted.iter().map(|(_, value)| *value).collect();
    ensure!(said.lines().collect::<Vec<_>>() == expected, "{said:?}");
    // The guest's process is in the same namespaces.
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "600000"])
        .start()?;
    for kind in ["net", "ipc"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        ensure!(of(guest.pid()?)? == of(pod.pid()?)?, "{kind}");
    }
    guest.stop(0)
}

fn privileged(test: &Test<'_>) -> Result<()> {
    let pod = test
        .pod("privileged")
        .linux(|linux| {
            linux.security_context.get_or_insert_default().privileged = true;
        })
        .run()?;
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "600000"])
        .security(|security| security.privileged = true)
        .start()?;
    guest.says("sleeping")?;
    ensure!(effective(&guest)? == 0, "{:x}", effective(&guest)?);
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", guest.pid()?))?;
    for kind in [" - proc ", " - sysfs ", " - cgroup"] {
        ensure!(!mounts.contains(kind), "{mounts}");
    }
    guest.stop(0)
}

fn user_namespace(test: &Test<'_>) -> Result<()> {
    let map = || {
        vec![IdMapping {
            host_id: 200_000,
            container_id: 0,
            length: 65536,
        }]
    };
    let pod = test
        .pod("mapped")
        .namespaces(|namespaces| {
            namespaces.userns_options = Some(UserNamespace {
                mode: NamespaceMode::Pod.into(),
                uids: map(),
                gids: map(),
            });
        })
        .run();
    let error = pod.err().context("it runs")?;
    ensure!(format!("{error:#}").contains("hostUsers"), "{error:#}");
    Ok(())
}
