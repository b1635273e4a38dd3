//! `wisp node`: the runtime comes to a containerd that did not know it, and goes.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use wisp_tests::cri::api::VersionRequest;
use wisp_tests::cri::{Node, Test};
use wisp_tests::images::Images;
use wisp_tests::run::Ended;
use wisp_tests::{command, paths, wait};

/// How long one run may take, restarts and a first compilation included.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn cases() -> Vec<Case> {
    super::cases(
        "install",
        &[
            (
                "the runtime comes and goes, and pods of others live through it",
                comes_and_goes,
            ),
            ("what does not work leaves the node as it was", rolled_back),
            (
                "a node that cannot take it says why and stays as it is",
                cannot_take,
            ),
            ("two at once wait for each other", two_at_once),
            (
                "systemd restarts the unit that containerd is of",
                by_its_unit,
            ),
        ],
    )
}

/// A node of its own without wisp, and where `wisp node` puts things.
pub(super) struct Subject<'t> {
    pub(super) node: &'t Node,
    pub(super) dir: PathBuf,
}

impl<'t> Subject<'t> {
    pub(super) fn new(test: &Test<'_>, node: &'t Node) -> Result<Self> {
        Ok(Self {
            node,
            dir: test.volume("subject")?,
        })
    }

    pub(super) fn config(&self) -> PathBuf {
        self.node.as_ref().dir().join("config.toml")
    }

    fn wisp(&self, arguments: &[&str]) -> Result<Ended> {
        self.wisp_after("true", arguments)
    }

    /// The same after `setup` in a mount namespace of its own.
    fn wisp_after(&self, setup: &str, arguments: &[&str]) -> Result<Ended> {
        let mut wisp = Command::new("unshare");
        wisp.args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(format!("{setup}; exec \"$@\""))
            .arg("sh")
            .arg(paths::wisp())
            .arg("node")
            .args(arguments)
            .arg("--address")
            .arg(self.node.as_ref().socket())
            .arg("--state")
            .arg(self.dir.join("state"));
        command::run(&mut wisp, Vec::new(), PATIENCE)
    }

    /// Asks whoever watches the directory for a restart, and waits for it.
    pub(super) fn restart(&self) -> String {
        let flag = self.flag();
        let flag = flag.display();
        format!("touch {flag}; while [ -e {flag} ]; do sleep 0.05; done")
    }

    pub(super) fn flag(&self) -> PathBuf {
        self.dir.join("restart")
    }

    fn install(&self, restart: &str) -> Result<Ended> {
        let programs = self.dir.join("programs");
        let programs = programs.to_string_lossy();
        self.wisp(&["install", "--restart", restart, "--programs", &programs])
    }
}

/// In the place of systemd: restarts the node whenever it is asked.
pub(super) fn with_restarts(
    subject: &Subject<'_>,
    body: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let restarts = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                if subject.flag().exists() {
                    subject.node.as_ref().crash_and_restart()?;
                    fs::remove_file(subject.flag())?;
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        let result = body();
        done.store(true, Ordering::Relaxed);
        let restarted = restarts
            .join()
            .map_err(|_| anyhow::anyhow!("restarts panicked"))?;
        result.and(restarted)
    })
}

fn comes_and_goes(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let original = fs::read(subject.config())?;
    with_restarts(&subject, || {
        let native = test.pod("native").runtime("runc").run()?;
        let old = native
            .container("old", &test.busybox()?)
            .args(&["sleep", "1000"])
            .start()?;
        let refused = test
            .pod("early")
            .run()
            .err()
            .context("there is no wisp yet")?;
        ensure!(format!("{refused:#}").contains("wisp"), "{refused:#}");

        let installed = subject.install(&subject.restart())?;
        ensure!(installed.code == 0, "{}", installed.err());
        reconnect(&test)?;
        let pod = test.pod("guest").run()?;
        let guest = pod
            .container("guest", &test.image("tour")?)
            .args(&["sleep", "1000000"])
            .start()?;
        let again = subject.install("false")?;
        ensure!(again.code == 0, "{}", again.err());
        ensure!(
            again.out().contains("had the runtime already"),
            "{}",
            again.out()
        );
        let verified = subject.wisp(&["verify"])?;
        ensure!(verified.code == 0, "{}", verified.err());
        let status = subject.wisp(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        ensure!(status["installed"]["proven"] == true, "{status}");
        ensure!(
            status["processes"]
                .as_array()
                .is_some_and(|all| !all.is_empty()),
            "{status}"
        );

        // Not from under a pod.
        let busy = subject.wisp(&["uninstall", "--restart", &subject.restart()])?;
        ensure!(
            busy.code == 1 && busy.err().contains("still run"),
            "{busy:?}"
        );
        let pid = guest.pid()?;
        guest.stop(0)?;
        pod.remove()?;
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "it lives");
        let gone = subject.wisp(&["uninstall", "--wait", "20", "--restart", &subject.restart()])?;
        ensure!(gone.code == 0, "{}", gone.err());
        ensure!(
            fs::read(subject.config())? == original,
            "another configuration"
        );
        let left: Vec<_> = fs::read_dir(&subject.dir)?.collect();
        ensure!(left.is_empty(), "left: {left:?}");
        let none = subject.wisp(&["uninstall"])?;
        ensure!(none.code == 0 && none.out().contains("nothing"), "{none:?}");

        // The first call after a restart may still go to the old connection.
        let alive = wait::until(PATIENCE, || old.exec(&["echo", "alive"]).ok())
            .context("what ran before cannot be reached")?;
        ensure!((alive.0, alive.1.as_str()) == (0, "alive\n"), "{alive:?}");
        native.remove()
    })?;
    test.nothing_left()
}

/// The connection of before a restart fails once.
pub(super) fn reconnect(test: &Test<'_>) -> Result<()> {
    wait::until(PATIENCE, || {
        let asked = VersionRequest::default();
        test.client()
            .call("Version", async |mut to| to.version(asked).await)
            .ok()
    })
    .map(drop)
    .context("containerd does not answer any more")
}

fn rolled_back(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let original = fs::read(subject.config())?;
    // containerd goes on as it is, so it never has the runtime.
    let failed = subject.install("false")?;
    ensure!(failed.code == 1, "{failed:?}");
    ensure!(
        failed.err().contains("is as it was before"),
        "{}",
        failed.err()
    );
    ensure!(
        fs::read(subject.config())? == original,
        "another configuration"
    );

    let nowhere = subject.wisp(&["install", "--from", "/nowhere"])?;
    ensure!(
        nowhere.code == 1 && nowhere.err().contains("/nowhere"),
        "{nowhere:?}"
    );
    fs::write(subject.config(), "version = ")?;
    let broken = subject.install("true")?;
    ensure!(
        broken.code == 1 && broken.err().contains("config.toml"),
        "{broken:?}"
    );
    ensure!(
        fs::read(subject.config())? == b"version = ",
        "it was changed"
    );
    fs::write(subject.config(), original)?;
    let gone = subject.wisp(&["uninstall", "--restart", "true"])?;
    ensure!(gone.code == 0, "{}", gone.err());
    let left: Vec<_> = wait::until(Duration::from_secs(1), || {
        let left: Vec<_> = fs::read_dir(&subject.dir).ok()?.collect();
        left.is_empty().then_some(left)
    })
    .unwrap_or_default();
    ensure!(left.is_empty(), "left: {left:?}");
    test.nothing_left()
}

fn cannot_take(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let original = fs::read(subject.config())?;
    let place = test.volume("place")?;
    let foreign = test.volume("foreign")?;
    for name in ["containerd-shim-wisp-v1", "wisp"] {
        // An ELF file of no machine that there is.
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 0xee;
        fs::write(foreign.join(name), bytes)?;
        fs::set_permissions(
            foreign.join(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
    }
    let (place, foreign) = (place.to_string_lossy(), foreign.to_string_lossy());
    let config = node.as_ref().dir().to_string_lossy().into_owned();
    let state = subject.dir.to_string_lossy().into_owned();
    let read_only = |dir: &str| format!("mount --bind {dir} {dir}; mount -o remount,bind,ro {dir}");
    for (setup, more, says) in [
        (
            format!("mount -t tmpfs -o size=1m none {place}"),
            ["--programs", &place],
            ["No space left", "--programs"],
        ),
        (
            format!("mount -t tmpfs -o noexec none {place}"),
            ["--programs", &place],
            ["noexec", "--programs"],
        ),
        (
            read_only(&place),
            ["--programs", &place],
            ["Read-only", "--programs"],
        ),
        (
            read_only(&config),
            ["--programs", &place],
            ["config.toml", "cannot be changed at run time"],
        ),
        (
            read_only(&state),
            ["--programs", &place],
            ["state", "cannot be changed at run time"],
        ),
        (
            "true".to_owned(),
            ["--from", &foreign],
            ["no program for this machine", "wisp"],
        ),
    ] {
        // An empty one goes with what was put there.
        fs::create_dir_all(&*place)?;
        fs::create_dir_all(&state)?;
        let arguments = [&["install", "--restart", "false"][..], &more].concat();
        let ended = subject.wisp_after(&setup, &arguments)?;
        ensure!(ended.code == 1, "{setup} {more:?}: {ended:?}");
        for text in says {
            ensure!(ended.err().contains(text), "{text}: {}", ended.err());
        }
        ensure!(fs::read(subject.config())? == original, "{setup}: changed");
        for dir in [&*place, &*state] {
            let left: Vec<_> = fs::read_dir(dir).into_iter().flatten().collect();
            ensure!(left.is_empty(), "{setup}: left {left:?}");
        }
    }
    test.nothing_left()
}

fn two_at_once(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let original = fs::read(subject.config())?;
    with_restarts(&subject, || {
        let restart = subject.restart();
        let (one, two) = thread::scope(|scope| {
            let other = scope.spawn(|| subject.install(&restart));
            let one = subject.install(&restart);
            (one, other.join())
        });
        let two = two.map_err(|_| anyhow::anyhow!("panicked"))?;
        // One may ask containerd just while the other has it restarted.
        let (one, two) = (one?, two?);
        ensure!(one.code == 0 || two.code == 0, "{}{}", one.err(), two.err());
        let status = subject.wisp(&["status", "--json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        ensure!(status["installed"]["proven"] == true, "{status}");
        let gone = subject.wisp(&["uninstall", "--wait", "20", "--restart", &restart])?;
        ensure!(gone.code == 0, "{}", gone.err());
        Ok(())
    })?;
    ensure!(
        fs::read(subject.config())? == original,
        "another configuration"
    );
    let left: Vec<_> = fs::read_dir(&subject.dir)?.collect();
    ensure!(left.is_empty(), "left: {left:?}");
    test.nothing_left()
}

/// With a stand-in for systemd: what it is asked for is what counts.
fn by_its_unit(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let original = fs::read(subject.config())?;
    let systemctl = test.file(
        "systemctl",
        format!(
            "#!/bin/sh\n[ \"$*\" = 'restart kube-node.service' ] || exit 9\n{}\n",
            subject.restart()
        ),
    )?;
    let cgroup = test.file("cgroup", "0::/../../system.slice/kube-node.service\n")?;
    let setup = |systemctl: &Path| {
        format!(
            "mount -t tmpfs none /run; mkdir -p /run/systemd/system /run/bin; \
             cp {} /run/bin/systemctl; chmod +x /run/bin/systemctl; export PATH=/run/bin:$PATH; \
             mount --bind {} /proc/{}/cgroup",
            systemctl.display(),
            cgroup.display(),
            node.as_ref().pid()
        )
    };
    let programs = subject.dir.join("programs");
    let programs = programs.to_string_lossy();
    let arguments = ["install", "--programs", &programs];
    let failing = test.file("failing", "#!/bin/sh\necho 'no such unit' >&2\nexit 5\n")?;
    let failed = subject.wisp_after(&setup(&failing), &arguments)?;
    ensure!(
        failed.code == 1 && failed.err().contains("no such unit"),
        "{failed:?}"
    );
    ensure!(fs::read(subject.config())? == original, "it was changed");
    with_restarts(&subject, || {
        let installed = subject.wisp_after(&setup(&systemctl), &arguments)?;
        ensure!(installed.code == 0, "{}", installed.err());
        let gone = subject.wisp_after(&setup(&systemctl), &["uninstall", "--wait", "20"])?;
        ensure!(gone.code == 0, "{}", gone.err());
        Ok(())
    })?;
    ensure!(
        fs::read(subject.config())? == original,
        "another configuration"
    );
    let left: Vec<_> = fs::read_dir(&subject.dir)?.collect();
    ensure!(left.is_empty(), "left: {left:?}");
    test.nothing_left()
}
