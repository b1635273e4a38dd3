//! From what is there to what it means.

use std::path::Path;

use crate::cgroups::Cgroups;
use crate::containerd::{Containerd, Daemon};
use crate::finding::Finding;
use crate::kernel::{Kernel, at_least};
use crate::kubelet::Kubelet;
use crate::settings::{Cri, Runtime, Settings, snippet};
use crate::{ANNOTATIONS, RUNTIME_TYPE, SHIM, shim};

/// What the kernel can do.
pub fn kernel(kernel: &Kernel) -> Vec<Finding> {
    let mut all = Vec::new();
    let newer = "run a Linux of version 5.12 or later";
    let missing: Vec<&str> = [
        (kernel.openat2, "openat2"),
        (
            kernel.mounts_by_descriptor,
            "open_tree, move_mount and mount_setattr",
        ),
        (kernel.pidfd, "pidfd_open"),
        (kernel.memfd, "memfd_create"),
    ]
    .into_iter()
    .filter_map(|(there, name)| (!there).then_some(name))
    .collect();
    all.push(if missing.is_empty() {
        Finding::ok(
            "kernel",
            format!(
                "Linux {} has the system calls that wisp makes",
                kernel.release
            ),
        )
    } else {
        let also = match at_least(&kernel.release, 5, 12) {
            true => "; this one should have them, so something filters system calls here",
            false => "",
        };
        Finding::failed(
            "kernel",
            format!("Linux {} lacks {}", kernel.release, missing.join(", ")),
            format!("{newer}{also}"),
        )
    });
    all.push(if kernel.seccomp {
        Finding::ok("seccomp", "filters of system calls are there")
    } else {
        Finding::failed(
            "seccomp",
            "the kernel has no filters of system calls",
            "run a kernel with CONFIG_SECCOMP_FILTER: guests and the compiler are confined by it",
        )
    });
    all.push(if kernel.overlayfs {
        Finding::ok("overlayfs", "the kernel has it")
    } else {
        Finding::warning(
            "overlayfs",
            "the kernel has no overlayfs, nor a module of that name",
            "run a kernel with CONFIG_OVERLAY_FS: containerd's usual snapshotter needs it, and \
             so do volumes in images that have no place for them",
        )
    });
    all.push(if kernel.user_namespaces {
        Finding::ok("user namespaces", "they can be made")
    } else {
        Finding::warning(
            "user namespaces",
            "none can be made",
            "set the sysctl user.max_user_namespaces to more than 0; without them the compiler \
             is confined by its system calls alone when it is not run by root",
        )
    });
    let speed: Vec<&str> = [
        (
            kernel.clone_into_cgroup,
            "processes born in their cgroup (5.7)",
        ),
        (kernel.pagemap_scan, "the PAGEMAP_SCAN request (6.7)"),
    ]
    .into_iter()
    .filter_map(|(there, name)| (!there).then_some(name))
    .collect();
    let landlock = match kernel.landlock {
        Some(version) => format!("Landlock {version}"),
        None => "no Landlock".to_owned(),
    };
    all.push(Finding::ok(
        "kernel extras",
        if speed.is_empty() {
            format!("all that makes wisp faster; {landlock}, which wisp does not need")
        } else {
            format!(
                "without {}, which would make wisp a little faster; {landlock}, which it does \
                 not need",
                speed.join(" and ")
            )
        },
    ));
    all
}

/// What cgroups there are.
pub fn cgroups(cgroups: &Cgroups) -> Finding {
    let Some(version) = cgroups.version else {
        return Finding::failed(
            "cgroups",
            "none are mounted at /sys/fs/cgroup",
            "mount them: `mount -t cgroup2 none /sys/fs/cgroup`, or boot with systemd",
        );
    };
    let missing = cgroups.missing();
    if missing.is_empty() {
        return Finding::ok(
            "cgroups",
            format!("version {version} with {}", cgroups.controllers.join(", ")),
        );
    }
    Finding::warning(
        "cgroups",
        format!("version {version} without {}", missing.join(", ")),
        "limits of what these control fail; see the kernel's command line (cgroup_disable, \
         cgroup_enable) and configuration",
    )
}

/// Whether containerd is there. The version is what it answered, or why it did
/// not.
pub fn containerd(containerd: &Containerd, version: Result<&str, &str>) -> Finding {
    let socket = containerd.socket.display();
    let version = match version {
        Ok(version) => version,
        Err(reason) => {
            return Finding::failed(
                "containerd",
                format!("{socket} takes connections and does not answer: {reason}"),
                "look at containerd's log: `journalctl -u containerd`",
            );
        }
    };
    let numbers = version.trim_start_matches('v');
    if !at_least(numbers, 1, 6) {
        return Finding::failed(
            "containerd",
            format!("version {version} at {socket}"),
            "install containerd 1.6 or later; wisp is tested with 1.6 and 2.1",
        );
    }
    let process = match &containerd.daemon {
        Some(daemon) => format!(", process {}", daemon.pid),
        None => String::new(),
    };
    Finding::ok(
        "containerd",
        format!("version {version} at {socket}{process}"),
    )
}

/// That containerd cannot be reached, and why.
pub fn unreachable(socket: &Path, error: &std::io::Error) -> Finding {
    let socket = socket.display();
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "start containerd, or name its socket: `wisp doctor --address PATH` ({socket} is \
             not there)"
        ),
        std::io::ErrorKind::PermissionDenied => "run `wisp doctor` as root".to_owned(),
        _ => "start containerd: `systemctl restart containerd`, and see `journalctl -u \
              containerd`"
            .to_owned(),
    };
    Finding::failed(
        "containerd",
        format!("{socket} cannot be connected to: {error}"),
        remedy,
    )
}

/// Whether pods can name wisp, and what they get then.
pub fn configuration(daemon: &Daemon, settings: &Settings) -> Vec<Finding> {
    let file = daemon.config.display();
    let Some(cri) = &settings.cri else {
        return vec![Finding::warning(
            "configuration",
            format!("{file} disables containerd's Kubernetes plugin"),
            "nothing, if this is no Kubernetes node: `ctr` and `nerdctl` need no configuration; \
             else take \"cri\" out of disabled_plugins",
        )];
    };
    let add = |schema| format!("add to {file} and restart containerd:\n{}", snippet(schema));
    let wisp = cri.wisp();
    if wisp.is_empty() {
        let found = match cri.runtimes.get("wisp") {
            Some(runtime) => format!(
                "{file} has a runtime called wisp of type {:?}",
                runtime.runtime_type
            ),
            None => format!("{file} has no runtime of type {RUNTIME_TYPE}"),
        };
        return vec![Finding::failed(
            "configuration",
            found,
            add(settings.schema),
        )];
    }
    wisp.into_iter()
        .map(|(name, runtime)| handler(&file.to_string(), name, runtime, cri))
        .collect()
}

fn handler(file: &str, name: &str, runtime: &Runtime, cri: &Cri) -> Finding {
    if !runtime.passes_annotations() {
        return Finding::failed(
            "configuration",
            format!("{file}: the runtime {name} does not get the annotations of pods"),
            format!(
                "give it pod_annotations = [\"{ANNOTATIONS}\"] and restart containerd; without \
                 them no pod can grant its guests anything"
            ),
        );
    }
    let default = match cri.default_runtime == name {
        true => ", the default of all pods",
        false => "",
    };
    Finding::ok(
        "configuration",
        format!("pods reach wisp by the handler {name}{default}, with their annotations"),
    )
}

/// Whether kubelet, containerd and the machine agree on who makes cgroups.
pub fn cgroup_driver(kubelet: &Kubelet, settings: &Settings, cgroups: &Cgroups) -> Option<Finding> {
    let cri = settings.cri.as_ref()?;
    let driver = kubelet.cgroup_driver.as_str();
    let systemd = driver == "systemd";
    let file = kubelet.path.display();
    if systemd && !cgroups.systemd {
        return Some(Finding::failed(
            "cgroup driver",
            format!("{file} has cgroupDriver: systemd, and systemd does not run here"),
            "set cgroupDriver: cgroupfs",
        ));
    }
    let runc = cri.runtimes.get("runc");
    // wisp goes by the form of the path that it is given.
    let differs = runc.is_some_and(|runc| {
        runc.runtime_type == "io.containerd.runc.v2" && runc.options.systemd_cgroup != systemd
    });
    Some(if differs {
        Finding::warning(
            "cgroup driver",
            format!("kubelet has {driver}, and containerd's runtime runc the other one"),
            format!("set SystemdCgroup = {systemd} in the options of containerd's runtime runc"),
        )
    } else {
        Finding::ok(
            "cgroup driver",
            format!("{driver}, for kubelet and containerd"),
        )
    })
}

/// Whether containerd will find the shim, and the right one.
pub fn shim(daemon: Option<&Daemon>, runtime: Option<&Runtime>, version: &str) -> Finding {
    let named = runtime
        .map(|runtime| runtime.runtime_path.as_str())
        .filter(|path| !path.is_empty())
        .map(Path::new);
    let own = std::env::var_os("PATH");
    let (search, program) = match daemon {
        Some(daemon) => (daemon.search.as_deref(), Some(daemon.program.as_path())),
        None => (own.as_deref(), None),
    };
    let Some(path) = shim::find(named, search, program) else {
        let (found, remedy) = match named {
            Some(named) => (
                format!(
                    "{} is not there, and containerd is told to run it",
                    named.display()
                ),
                format!("put {SHIM} there, or correct runtime_path in containerd's configuration"),
            ),
            None => (
                format!("{SHIM} is not where containerd looks"),
                format!(
                    "put it into one of {}",
                    search.unwrap_or_default().to_string_lossy()
                ),
            ),
        };
        return Finding::failed("shim", found, remedy);
    };
    let shown = path.display();
    if !shim::is_executable(&path) {
        return Finding::failed(
            "shim",
            format!("{shown} cannot be executed"),
            format!("`chmod 755 {shown}`, on a file system that is not mounted noexec"),
        );
    }
    match shim::version(&path) {
        Ok(found) if found == version => Finding::ok("shim", format!("{shown}, version {found}")),
        Ok(found) => Finding::failed(
            "shim",
            format!("{shown} is of version {found}, and this wisp of {version}"),
            "install both of the same version: the shim runs code that wisp has compiled",
        ),
        Err(reason) => Finding::failed(
            "shim",
            format!("{shown} does not run: {reason}"),
            "install the shim that was built for this machine",
        ),
    }
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
