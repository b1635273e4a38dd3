//! The installer's image in a pod like the DaemonSet's: privileged, with the
//! node's processes and its root directory, under the containerd that it restarts.

use super::Case;
use crate::machine::{
    PATIENCE, PROGRAMS, STATE, Subject, build_of, builds, files, is_configured, same,
};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use wisp_tests::cluster::{Cluster, NODE};
use wisp_tests::cri::api::{ContainerState, ContainerStatus, MountPropagation, NamespaceMode};
use wisp_tests::cri::{Container, Pod};
use wisp_tests::{http, processes, wait};

const READY: &str = "wisp.io/ready";
const STATUS: &str = "wisp.io/status";
const LISTEN: &str = "127.0.0.1:9913";
/// What `scripts/image.sh` made of the programs under test.
const IMAGE: &str = concat!("localhost/wisp/node-installer:", env!("CARGO_PKG_VERSION"));

pub fn cases() -> Vec<Case> {
    super::cases(
        "installer",
        &[
            (
                "a pod of the image installs, upgrades and leaves its node, and outlives the restarts",
                comes_and_goes,
            ),
            (
                "when it dies with the restart, the next one goes on",
                killed,
            ),
            (
                "where the unit does not come up with wisp, it says so and all is as before",
                fails,
            ),
        ],
    )
}

/// The installer's pod, of which one container follows another.
struct Installer<'s> {
    subject: &'s Subject<'s>,
    cluster: &'s Cluster,
    pod: Pod<'s, 's>,
}

impl<'s> Installer<'s> {
    fn new(subject: &'s Subject<'s>, cluster: &'s Cluster) -> Result<Self> {
        let archive = std::env::var_os("WISP_TESTS_INSTALLER_IMAGE");
        let archive = archive.context("WISP_TESTS_INSTALLER_IMAGE names no archive")?;
        subject.test.import(IMAGE, archive.into())?;
        let pod = subject
            .pod("installer")
            .runtime("runc")
            // The stand-in for an API server is on the node.
            .host_network()
            .namespaces(|namespaces| namespaces.pid = NamespaceMode::Node.into())
            .linux(|linux| linux.security_context.get_or_insert_default().privileged = true)
            .run()?;
        Ok(Self {
            subject,
            cluster,
            pod,
        })
    }

    /// Its container, as deploy/base/daemonset.yaml has it. `from` is a directory
    /// of other programs than the image's.
    fn start(&self, attempt: u32, from: Option<&Path>) -> Result<Container<'_, 's, 's>> {
        let mut container = self
            .pod
            .container("installer", IMAGE)
            .attempt(attempt)
            .args(&["run"])
            .env("NODE_NAME", NODE)
            .env("POD_NAMESPACE", "wisp-system")
            .env("WISP_DAEMONSET", "wisp-node-installer")
            .env("WISP_KUBERNETES", &self.cluster.url())
            .env("WISP_LISTEN", LISTEN)
            .env("WISP_INTERVAL", "2")
            .env("WISP_WAIT", "600")
            .mount(Path::new("/"), "/host", |mount| {
                mount.set_propagation(MountPropagation::PropagationHostToContainer);
            })
            .read_only(
                self.cluster.credentials(),
                "/var/run/secrets/kubernetes.io/serviceaccount",
            )
            .security(|security| {
                security.privileged = true;
                security.readonly_rootfs = true;
            });
        if let Some(from) = from {
            container = container
                .read_only(from, "/programs")
                .env("WISP_FROM", "/programs");
        }
        container.start()
    }

    /// Waits for something; else says what the container's log has.
    fn until<T>(
        &self,
        container: &Container<'_, '_, '_>,
        what: &str,
        look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        wait::until(PATIENCE, look).with_context(|| {
            let log = fs::read_to_string(&container.log).unwrap_or_default();
            format!("{what}: not so:\n{log}")
        })
    }

    fn ready(&self, container: &Container<'_, '_, '_>) -> Result<()> {
        self.until(container, "the label", || {
            self.cluster.label(READY).filter(|value| value == "true")
        })?;
        self.until(container, "/readyz", || {
            get("/readyz").ok().filter(|(code, _)| *code == 200)
        })?;
        self.subject.reconnect()
    }

    /// Waits for its end.
    fn ended(&self, container: &Container<'_, '_, '_>) -> Result<ContainerStatus> {
        self.until(container, "the end", || {
            container
                .status()
                .ok()
                .filter(|status| status.state() == ContainerState::ContainerExited)
        })
    }
}

/// What it answers to GET: the status and the body.
fn get(path: &str) -> Result<(u16, String)> {
    let response = http::get_from(LISTEN.parse()?, path)?;
    Ok((response.status, response.text()))
}

/// As kubelet has a container asked to end, also while containerd is away.
fn terminate(pid: u32) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    Ok(())
}

fn comes_and_goes(subject: &Subject<'_>) -> Result<()> {
    let (test, unit) = (&subject.test, subject.unit()?);
    let before = files()?;
    let cluster = Cluster::start(test.dir())?;
    let native = subject.pod("native").runtime("runc").run()?;
    let old = native
        .container("old", &test.busybox()?)
        .args(&["sleep", "1000000"])
        .start()?;
    let old_pid = old.pid()?;
    let installer = Installer::new(subject, &cluster)?;
    let first = unit.invocation()?;
    let container = installer.start(0, None)?;
    let pid = container.pid()?;
    installer.ready(&container)?;
    let second = unit.invocation()?;
    ensure!(first != second, "the unit was not restarted");
    ensure!(container.pid()? == pid, "it did not outlive the restart");
    ensure!(subject.has_handler()?, "CRI clients see no handler wisp");
    let status = cluster.annotation(STATUS).context("no annotation")?;
    ensure!(
        status["state"] == "ready" && status["containerd"].is_string(),
        "{status}"
    );
    let (_, metrics) = get("/metrics")?;
    let changed = "wisp_node_installs_total{result=\"changed\"} 1\n";
    ensure!(metrics.contains(changed), "{metrics}");
    let pod = subject.pod("guest").run()?;
    let guest = pod
        .container("guest", &test.image("tour")?)
        .args(&["sleep", "1000000"])
        .start()?;
    guest.says("sleeping")?;
    let (guest_pid, build) = (guest.pid()?, build_of(guest.pid()?)?);
    ensure!(build.starts_with(PROGRAMS), "{}", build.display());

    // An update of the DaemonSet to another build: the label stays, nothing restarts.
    terminate(pid)?;
    let ended = installer.ended(&container)?;
    ensure!(ended.exit_code == 0, "{ended:?}");
    ensure!(cluster.label(READY).is_some(), "the label went");
    let other = subject.other_build()?;
    let container = installer.start(1, Some(&other))?;
    installer.until(&container, "the upgrade", || {
        let (code, _) = get("/readyz").ok()?;
        (code == 200 && builds().len() == 2).then_some(())
    })?;
    ensure!(unit.invocation()? == second, "restarted for an upgrade");
    ensure!(guest.pid()? == guest_pid, "the guest was replaced");
    ensure!(build_of(guest_pid)? == build, "its program was replaced");

    // The DaemonSet is deleted while a pod of wisp runs.
    cluster.objects().daemon_set = None;
    terminate(container.pid()?)?;
    installer.until(&container, "no new pods", || {
        let status = cluster.annotation(STATUS)?;
        (status["state"] == "leaving" && cluster.label(READY).is_none()).then_some(())
    })?;
    ensure!(is_configured(), "it went from under a pod");
    let _ = guest.stop(0);
    pod.remove()?;
    let ended = installer.ended(&container)?;
    ensure!(
        ended.exit_code == 0,
        "{ended:?}: {}",
        fs::read_to_string(&container.log)?
    );
    same(&before, &files()?)?;
    subject.reconnect()?;
    ensure!(unit.invocation()? != second, "the unit was not restarted");
    ensure!(!subject.has_handler()?, "CRI clients see a handler wisp");
    ensure!(cluster.annotation(STATUS).is_none(), "an annotation stays");
    for place in [PROGRAMS, STATE] {
        ensure!(!Path::new(place).exists(), "{place} is left");
    }
    let alive = wait::until(PATIENCE, || old.exec(&["echo", "alive"]).ok());
    let alive = alive.context("what ran before cannot be reached")?;
    ensure!((alive.0, alive.1.as_str()) == (0, "alive\n"), "{alive:?}");
    ensure!(old.pid()? == old_pid, "it is another");
    native.remove()
}

fn killed(subject: &Subject<'_>) -> Result<()> {
    let before = files()?;
    let cluster = Cluster::start(subject.test.dir())?;
    let installer = Installer::new(subject, &cluster)?;
    let container = installer.start(0, None)?;
    let pid = container.pid()?;
    // Next is the restart.
    installer.until(&container, "the configuration", || {
        is_configured().then_some(())
    })?;
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    // What shares the node's processes goes with the container's first.
    let gone = wait::until(PATIENCE, || {
        processes::concerning("wisp node install")
            .is_empty()
            .then_some(())
    });
    gone.context("what it has started goes on")?;
    ensure!(cluster.label(READY).is_none(), "nothing is proven");
    subject.reconnect()?;
    installer.ended(&container)?;

    let container = installer.start(1, None)?;
    installer.ready(&container)?;
    ensure!(subject.has_handler()?, "CRI clients see no handler wisp");
    cluster.objects().daemon_set = None;
    terminate(container.pid()?)?;
    let ended = installer.ended(&container)?;
    ensure!(ended.exit_code == 0, "{ended:?}");
    same(&before, &files()?)
}

fn fails(subject: &Subject<'_>) -> Result<()> {
    let cluster = Cluster::start(subject.test.dir())?;
    let settings = subject.unit()?.with_settings(
        "[Service]\nExecStartPre=/bin/sh -c '! grep -rq containerd-shim-wisp /etc/containerd'\n",
    )?;
    let before = files()?;
    let installer = Installer::new(subject, &cluster)?;
    let container = installer.start(0, None)?;
    let pid = container.pid()?;
    installer.until(&container, "the event", || {
        cluster.events("WispNotInstalled").first().cloned()
    })?;
    let message = cluster.events("WispNotInstalled").remove(0);
    ensure!(message.contains("is as it was before"), "{message}");
    let (code, text) = get("/readyz")?;
    ensure!(
        code == 503 && text.contains("is as it was before"),
        "{code} {text}"
    );
    ensure!(cluster.label(READY).is_none(), "it is not ready");
    // It would try again.
    terminate(pid)?;
    installer.ended(&container)?;
    subject.reconnect()?;
    same(&before, &files()?)?;
    subject.unit()?.invocation()?;
    drop(settings);
    Ok(())
}
