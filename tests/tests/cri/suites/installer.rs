//! `wisp-node-installer`: what the DaemonSet's pods do to a node, and say.

use super::Case;
use super::install::{Subject, reconnect, with_restarts};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wisp_tests::cluster::{Cluster, NODE};
use wisp_tests::cri::{Node, Test};
use wisp_tests::images::Images;
use wisp_tests::{command, http, paths, processes, wait};

/// How long one installation may take, restarts and a first compilation included.
const PATIENCE: Duration = Duration::from_secs(120);
const READY: &str = "wisp.io/ready";
const STATUS: &str = "wisp.io/status";

pub fn cases() -> Vec<Case> {
    super::cases(
        "installer",
        &[
            (
                "a node is installed, kept so, and left with its DaemonSet",
                comes_stays_and_goes,
            ),
            (
                "what fails is told, and what was begun is removed",
                fails_and_is_removed,
            ),
            (
                "a version that does not work leaves the one before, and pods may come",
                upgrade_fails,
            ),
            ("killed at a restart, it goes on", killed),
            ("without rights nothing breaks, and it says so", no_rights),
        ],
    )
}

/// A pod of the DaemonSet, as far as a process can be one: a mount namespace of
/// its own, in which the node is at another place and its directories are not
/// where they are on the node.
struct Installer {
    child: Child,
    log: PathBuf,
}

impl Installer {
    fn start(
        test: &Test<'_>,
        subject: &Subject<'_>,
        cluster: &Cluster,
        restart: &str,
        more: &[&str],
    ) -> Result<Self> {
        let host = test.volume("host")?;
        let log = test.dir().join("installer.log");
        let out = fs::File::options().create(true).append(true).open(&log)?;
        let program = paths::installer();
        ensure!(
            program.exists(),
            "{} is missing: run `make build`",
            program.display()
        );
        let mut pod = Command::new("unshare");
        pod.args(["--mount", "--propagation", "private", "sh", "-ec"])
            .arg(
                "mount --rbind / \"$1\"; mount -t tmpfs none \"$2\"; mount -t tmpfs none \"$3\"; \
                 shift 3; exec \"$@\"",
            )
            .arg("sh")
            .args([&host, &subject.dir, subject.node.as_ref().dir()])
            .arg(&program)
            .args([
                "run",
                "--node",
                NODE,
                "--interval",
                "1",
                "--listen",
                "127.0.0.1:0",
            ])
            .args([
                "--daemonset",
                "wisp-node-installer",
                "--kubernetes",
                &cluster.url(),
            ])
            .arg("--credentials")
            .arg(cluster.credentials())
            .arg("--host")
            .arg(&host)
            .arg("--address")
            .arg(subject.node.as_ref().socket())
            .arg("--state")
            .arg(subject.dir.join("state"))
            .arg("--programs")
            .arg(subject.dir.join("programs"))
            .args(["--restart", restart])
            .args(more)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = pod.spawn().with_context(|| format!("{pod:?}"))?;
        Ok(Self { child, log })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for something, unless the program ends before.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let mut ended = None;
        let found = wait::until(PATIENCE, || {
            let found = look();
            if found.is_none() {
                ended = self.child.try_wait().ok().flatten();
            }
            found.map(Some).or(ended.map(|_| None))
        });
        match found.flatten() {
            Some(found) => Ok(found),
            None => bail!("{what}: not so ({ended:?}):\n{}", self.log()),
        }
    }

    /// What it answers to GET: the status and the body.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        let log = self.log();
        let address = log
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("listening on "))
            .context("it does not listen")?;
        let response = http::get_from(address.parse()?, path)?;
        Ok((response.status, response.text()))
    }

    fn terminate(&self) -> Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGTERM,
        )?;
        Ok(())
    }

    fn ended(&mut self) -> Result<i32> {
        let child = &mut self.child;
        let status = wait::until(PATIENCE, || child.try_wait().ok().flatten());
        let status = status.with_context(|| format!("it does not end:\n{}", self.log()))?;
        status.code().context("it was killed")
    }

    /// As a pod's end without grace: all of its processes at once.
    fn kill(&mut self) -> Result<()> {
        let own = i32::try_from(self.child.id())?;
        for process in processes::all() {
            if process.parent() == Some(own) {
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
    }
}

fn comes_stays_and_goes(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let cluster = Cluster::start(test.dir())?;
    let original = fs::read(subject.config())?;
    with_restarts(&subject, || {
        let mut installer = Installer::start(&test, &subject, &cluster, &subject.restart(), &[])?;
        let mut wisp = Command::new(paths::installer());
        wisp.args(["enter", "--until-installed", "/", "--"])
            .arg(subject.dir.join("programs/bin/wisp"))
            .args(["cache", "--help"]);
        let waited = std::thread::spawn(move || command::run(&mut wisp, Vec::new(), PATIENCE));
        installer.until("the label", || cluster.label(READY))?;
        ensure!(cluster.label(READY).as_deref() == Some("true"));
        let status = cluster.annotation(STATUS).context("no annotation")?;
        ensure!(
            status["state"] == "ready" && status["version"].is_string(),
            "{status}"
        );
        ensure!(status["containerd"].is_string(), "{status}");
        installer.until("ready", || (installed_ready(&cluster)).then_some(()))?;
        let ready = wait::until(PATIENCE, || {
            installer
                .get("/readyz")
                .ok()
                .filter(|(code, _)| *code == 200)
        });
        ensure!(ready.is_some(), "{}", installer.log());
        let (code, metrics) = installer.get("/metrics")?;
        ensure!(
            code == 200 && metrics.contains("wisp_node_ready 1\n"),
            "{metrics}"
        );
        ensure!(
            metrics.contains("wisp_node_installs_total{result=\"changed\"} 1\n"),
            "{metrics}"
        );

        let waited = waited.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        ensure!(
            waited.code == 0 && waited.out().contains("watch"),
            "{waited:?}"
        );

        reconnect(&test)?;
        let pod = test.pod("guest").run()?;
        let guest = pod
            .container("guest", &test.image("tour")?)
            .args(&["sleep", "1000000"])
            .start()?;

        // Whatever others do to the node's object or to the node.
        cluster.objects().node["labels"][READY] = "false".into();
        installer.until("the label again", || {
            cluster.label(READY).filter(|value| value == "true")
        })?;
        cluster.objects().node["annotations"] = serde_json::json!({});
        installer.until("the annotation again", || cluster.annotation(STATUS))?;
        fs::write(subject.config(), &original)?;
        installer.until("the configuration again", || {
            let text = fs::read_to_string(subject.config()).ok()?;
            text.contains("runtimes.wisp").then_some(())
        })?;
        installer.until("the second event", || {
            (cluster.events("WispInstalled").len() == 2).then_some(())
        })?;
        ensure!(
            guest.exec(&["true"]).is_ok() || guest.pid().is_ok(),
            "the guest is gone"
        );

        // An update of the DaemonSet: one pod ends, another comes.
        installer.terminate()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());
        ensure!(
            cluster.label(READY).as_deref() == Some("true"),
            "the label went"
        );
        ensure!(fs::read_to_string(subject.config())?.contains("runtimes.wisp"));
        let mut installer = Installer::start(&test, &subject, &cluster, &subject.restart(), &[])?;
        let unchanged = "wisp_node_installs_total{result=\"unchanged\"} 1\n";
        installer_says(&mut installer, unchanged)?;
        ensure!(
            cluster.events("WispInstalled").len() == 2,
            "{:?}",
            cluster.events("WispInstalled")
        );

        // The DaemonSet is deleted while a pod runs.
        cluster.objects().daemon_set = None;
        installer.terminate()?;
        installer.until("no new pods", || {
            let status = cluster.annotation(STATUS)?;
            (status["state"] == "leaving" && cluster.label(READY).is_none()).then_some(())
        })?;
        ensure!(fs::read_to_string(subject.config())?.contains("runtimes.wisp"));
        reconnect(&test)?;
        let _ = guest.stop(0);
        pod.remove()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());
        ensure!(
            fs::read(subject.config())? == original,
            "another configuration"
        );
        let left: Vec<_> = fs::read_dir(&subject.dir)?.collect();
        ensure!(left.is_empty(), "left: {left:?}");
        ensure!(cluster.label(READY).is_none() && cluster.annotation(STATUS).is_none());
        ensure!(cluster.label("kubernetes.io/os").as_deref() == Some("linux"));
        Ok(())
    })?;
    test.nothing_left()
}

fn installed_ready(cluster: &Cluster) -> bool {
    cluster.events("WispInstalled").len() == 1
}

fn installer_says(installer: &mut Installer, sample: &str) -> Result<()> {
    let found = wait::until(PATIENCE, || {
        let (_, text) = installer.get("/metrics").ok()?;
        text.contains(sample).then_some(())
    });
    found.with_context(|| format!("no {sample}:\n{}", installer.log()))
}

fn fails_and_is_removed(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let cluster = Cluster::start(test.dir())?;
    let original = fs::read(subject.config())?;
    // containerd cannot be restarted, so it never has the runtime.
    let mut installer = Installer::start(&test, &subject, &cluster, "echo no; exit 7", &[])?;
    installer.until("the event", || {
        cluster.events("WispNotInstalled").first().cloned()
    })?;
    let message = cluster.events("WispNotInstalled").remove(0);
    ensure!(message.contains("is as it was before"), "{message}");
    installer.until("the annotation", || {
        let status = cluster.annotation(STATUS)?;
        (status["state"] == "failed" && status["message"].is_string()).then_some(())
    })?;
    ensure!(cluster.label(READY).is_none(), "it is not ready");
    ensure!(
        fs::read(subject.config())? == original,
        "another configuration"
    );
    let (code, text) = installer.get("/readyz")?;
    ensure!(
        code == 503 && text.contains("is as it was before"),
        "{code} {text}"
    );
    ensure!(installer.get("/healthz")?.0 == 200, "it is alive");
    // Again, and no second event of the same.
    installer_says(
        &mut installer,
        "wisp_node_installs_total{result=\"failed\"} 2\n",
    )?;
    ensure!(cluster.events("WispNotInstalled").len() == 1);
    installer.terminate()?;
    ensure!(installer.ended()? == 0, "{}", installer.log());

    let more = ["--mode", "uninstall"];
    let mut remover = Installer::start(&test, &subject, &cluster, "true", &more)?;
    remover.until("nothing", || {
        let nothing = fs::read_dir(&subject.dir).ok()?.next().is_none();
        (nothing && cluster.annotation(STATUS).is_none()).then_some(())
    })?;
    remover.terminate()?;
    ensure!(remover.ended()? == 0, "{}", remover.log());
    ensure!(
        fs::read(subject.config())? == original,
        "another configuration"
    );
    test.nothing_left()
}

fn upgrade_fails(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let cluster = Cluster::start(test.dir())?;
    let original = fs::read(subject.config())?;
    let broken = test.volume("broken")?;
    fs::copy(paths::wisp(), broken.join("wisp"))?;
    let version = env!("CARGO_PKG_VERSION");
    let shim = test.file(
        "broken/containerd-shim-wisp-v1",
        format!("#!/bin/sh\n[ \"$1\" = -v ] && exec echo 'Version: {version}'\necho no; exit 3\n"),
    )?;
    fs::set_permissions(&shim, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let broken = broken.to_string_lossy();
    with_restarts(&subject, || {
        let mut installer = Installer::start(&test, &subject, &cluster, &subject.restart(), &[])?;
        installer.until("the label", || cluster.label(READY))?;
        installer.terminate()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());

        let from = ["--from", &broken];
        let mut installer = Installer::start(&test, &subject, &cluster, "false", &from)?;
        installer.until("the event", || {
            cluster.events("WispNotInstalled").first().cloned()
        })?;
        let message = cluster.events("WispNotInstalled").remove(0);
        ensure!(
            message.contains("which was there before, stays"),
            "{message}"
        );
        installer.until("the annotation", || {
            let status = cluster.annotation(STATUS)?;
            (status["state"] == "failed").then_some(())
        })?;
        ensure!(cluster.label(READY).as_deref() == Some("true"), "it works");
        let (code, text) = installer.get("/readyz")?;
        ensure!(code == 503 && text.contains("stays"), "{code} {text}");
        reconnect(&test)?;
        let pod = test.pod("guest").run()?;
        pod.container("guest", &test.image("tour")?)
            .args(&["both"])
            .succeeds()?;
        pod.stop()?;
        pod.remove()?;
        installer.terminate()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());

        let more = ["--on-stop", "uninstall"];
        let mut installer = Installer::start(&test, &subject, &cluster, &subject.restart(), &more)?;
        installer.until("ready", || {
            let status = cluster.annotation(STATUS)?;
            (status["state"] == "ready").then_some(())
        })?;
        installer.terminate()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());
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

fn killed(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let cluster = Cluster::start(test.dir())?;
    let original = fs::read(subject.config())?;
    // Nobody answers the request for a restart before it is killed.
    let mut installer = Installer::start(&test, &subject, &cluster, &subject.restart(), &[])?;
    let flag = subject.flag();
    installer.until("the restart", || flag.exists().then_some(()))?;
    installer.kill()?;
    ensure!(cluster.label(READY).is_none(), "nothing is proven");
    with_restarts(&subject, || {
        let mut installer = Installer::start(&test, &subject, &cluster, &subject.restart(), &[])?;
        installer.until("the label", || cluster.label(READY))?;
        cluster.objects().daemon_set = None;
        installer.terminate()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());
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

fn no_rights(shared: &Test<'_>) -> Result<()> {
    let node = Node::without_wisp(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let subject = Subject::new(&test, &node)?;
    let cluster = Cluster::start(test.dir())?;
    let original = fs::read(subject.config())?;
    cluster.objects().token = "another".to_owned();
    with_restarts(&subject, || {
        let mut installer = Installer::start(
            &test,
            &subject,
            &cluster,
            &subject.restart(),
            &["--on-stop", "uninstall"],
        )?;
        let told = wait::until(PATIENCE, || {
            let (code, text) = installer.get("/readyz").ok()?;
            let told = text.contains("401") && text.contains("nothing is changed");
            (code == 503 && told).then_some(())
        });
        ensure!(told.is_some(), "{}", installer.log());
        let touched: Vec<_> = fs::read_dir(&subject.dir)?.collect();
        ensure!(touched.is_empty(), "touched: {touched:?}");
        ensure!(fs::read(subject.config())? == original, "it was changed");
        // kubelet brings a new token.
        cluster.objects().token = "new".to_owned();
        fs::write(cluster.credentials().join("token"), "new")?;
        installer.until("the label", || cluster.label(READY))?;

        let mut retire = Command::new(paths::installer());
        retire
            .args([
                "retire",
                "--daemonset",
                "wisp-node-installer",
                "--timeout",
                "2",
            ])
            .args(["--kubernetes", &cluster.url(), "--credentials"])
            .arg(cluster.credentials());
        let waits = command::run(&mut retire, Vec::new(), PATIENCE)?;
        ensure!(
            waits.code == 1 && waits.err().contains("still there"),
            "{waits:?}"
        );
        installer.terminate()?;
        ensure!(installer.ended()? == 0, "{}", installer.log());
        cluster.objects().daemon_set = None;
        let gone = command::run(&mut retire, Vec::new(), PATIENCE)?;
        ensure!(gone.code == 0, "{gone:?}");
        Ok(())
    })?;
    let left: Vec<_> = fs::read_dir(&subject.dir)?.collect();
    ensure!(left.is_empty(), "left: {left:?}");
    test.nothing_left()
}
