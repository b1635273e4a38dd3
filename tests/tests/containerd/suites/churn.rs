//! Many containers come and go, and some of what runs them is killed; then
//! everything is as it was.
//!
//! `WISP_CHURN=1000/50` is how many and how many at once, and
//! `WISP_CHURN_SEED` repeats a run. `make churn` is the long form.

use super::Case;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;
use wisp_tests::api::{Client, Streams};
use wisp_tests::images::Images;
use wisp_tests::processes;
use wisp_tests::random::Random;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Containerd, Test};

pub fn cases() -> Vec<Case> {
    super::cases(
        "churn",
        &[(
            "many containers come and go, and all is as it was",
            containers,
        )],
    )
}

/// The short form: how many containers, and how many of them at once.
const SHORT: (usize, usize) = (60, 20);
/// What the heap of a daemon may keep of what has been (KiB).
const SLACK: u64 = 1024;

fn size() -> Result<(usize, usize)> {
    let Ok(text) = std::env::var("WISP_CHURN") else {
        return Ok(SHORT);
    };
    let (all, wave) = text.split_once('/').context("WISP_CHURN is not N/M")?;
    Ok((all.parse()?, wave.parse()?))
}

/// How a container's life is to end.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// By itself, where it does.
    Wait,
    /// containerd is asked to.
    Kill(Signal),
    /// The host kills its process.
    Process,
    /// The host kills its shim.
    Shim,
    /// It is deleted before it was started.
    Unstarted,
}

const FATES: [Fate; 8] = [
    Fate::Wait,
    Fate::Wait,
    Fate::Kill(Signal::SIGKILL),
    Fate::Kill(Signal::SIGKILL),
    Fate::Kill(Signal::SIGTERM),
    Fate::Process,
    Fate::Shim,
    Fate::Unstarted,
];

/// What is copied: a container without a task.
#[derive(Clone, Debug)]
struct Model {
    id: String,
    /// Whether it ends by itself.
    ends: bool,
    /// Whether its shim is that of the pod that stays.
    in_pod: bool,
}

fn models(test: &Test<'_>, pod: &str) -> Result<Vec<Model>> {
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    let (hello, module) = (test.image("hello")?, test.image("tour-module")?);
    let mut models = Vec::new();
    for in_pod in [false, true] {
        for (image, args, ends) in [
            (&hello, &[][..], true),
            (&module, &["exit", "7"], true),
            (&tour, &["trap"], true),
            (&tour, &["sleep", "1000000"], false),
            (&module, &["spin"], false),
            (&busybox, &["sleep", "1000"], false),
            (&busybox, &["sh", "-c", "sleep 1000 & exit 3"], true),
        ] {
            let id = test.run(image).args(args).create_with(|spec| {
                if in_pod {
                    spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into();
                }
            })?;
            models.push(Model { id, ends, in_pod });
        }
    }
    Ok(models)
}

/// One container's life.
fn live(
    node: &Containerd,
    namespace: &str,
    id: &str,
    model: &Model,
    mut random: Random,
) -> Result<()> {
    let fate = loop {
        match random.one(&FATES) {
            Fate::Wait if !model.ends => {}
            // It is everybody's in the pod.
            Fate::Shim if model.in_pod => {}
            fate => break fate,
        }
    };
    let pause = Duration::from_millis(random.below(40));
    live_until(node, namespace, id, model, fate, pause)
}

/// One container's life, of which this is the end.
fn live_until(
    node: &Containerd,
    namespace: &str,
    id: &str,
    model: &Model,
    fate: Fate,
    pause: Duration,
) -> Result<()> {
    let client = Client::connect(node, namespace)?;
    client.copy(&model.id, id)?;
    let lived = end(&client, namespace, id, fate, pause);
    // Whatever has happened, it can be removed.
    let mut last = None;
    let removed = wait::until(PATIENCE * 2, || {
        let _ = client.kill(id, Signal::SIGKILL as i32, true);
        let _ = client.delete(id);
        last = client.remove_copy(id).err();
        last.is_none().then_some(())
    });
    if removed.is_none() {
        bail!("{id} cannot be removed after {fate:?}: {last:?}; {lived:?}");
    }
    lived.with_context(|| format!("{id}, {fate:?}, like {}", model.id))
}

fn end(client: &Client, namespace: &str, id: &str, fate: Fate, pause: Duration) -> Result<()> {
    let pid = client.create(id, &Streams::default())?;
    if matches!(fate, Fate::Unstarted) {
        client.delete(id)?;
        return Ok(());
    }
    client.start(id)?;
    // Not always at the same point of its life.
    thread::sleep(pause);
    match fate {
        Fate::Wait | Fate::Unstarted => {}
        // It may have ended by then, and it need not end of SIGTERM.
        Fate::Kill(signal) => drop(client.kill(id, signal as i32, false)),
        Fate::Process => drop(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)),
        Fate::Shim => {
            for shim in daemons(namespace, id) {
                let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
            }
            return Ok(());
        }
    }
    if matches!(fate, Fate::Kill(Signal::SIGTERM)) {
        let _ = client.kill(id, Signal::SIGKILL as i32, false);
    }
    client.wait(id)?;
    client.delete(id)?;
    Ok(())
}

/// The daemons of a pod or container.
fn daemons(namespace: &str, id: &str) -> Vec<i32> {
    let serves = format!(" -namespace {namespace} -id {id} ");
    processes::all()
        .into_iter()
        .filter(|process| process.line.contains(" serve ") && process.line.contains(&serves))
        .map(|process| process.pid)
        .collect()
}

fn wave(
    test: &Test<'_>,
    models: &[Model],
    random: &Random,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let (node, namespace) = (test.node, test.namespace());
    thread::scope(|scope| {
        let lives: Vec<_> = numbers
            .map(|number| {
                let mut random = random.of(number);
                let at = usize::try_from(random.below(models.len() as u64)).unwrap_or_default();
                let model = &models[at];
                let id = format!("churned{number}");
                test.know(&id);
                scope.spawn(move || live(node, namespace, &id, model, random))
            })
            .collect();
        for life in lives {
            life.join().ok().context("a thread panicked")??;
        }
        Ok(())
    })
}

/// One of each kind, whatever the waves draw: a shim makes some things with the first
/// container that needs them, and keeps them. With the first native one that it
/// deletes, libcontainer opens a `/proc` of its own (pathrs' `ProcfsHandle`).
fn one_of_each(test: &Test<'_>, models: &[Model]) -> Result<()> {
    for model in models {
        let id = format!("first-{}", model.id);
        test.know(&id);
        let fate = Fate::Kill(Signal::SIGKILL);
        live_until(
            test.node,
            test.namespace(),
            &id,
            model,
            fate,
            Duration::ZERO,
        )?;
    }
    Ok(())
}

/// What must be as before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    containerd: usize,
    daemon: usize,
    threads: u64,
}

fn state(node: &Containerd, daemon: i32) -> Result<State> {
    let descriptors =
        |pid: i64| -> Result<usize> { Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count()) };
    Ok(State {
        containerd: descriptors(node.pid().into())?,
        daemon: descriptors(daemon.into())?,
        threads: status(daemon, "Threads")?,
    })
}

/// What a process has open, to be read by people.
fn open(pid: i32) -> String {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let mut names: Vec<_> = links
        .flatten()
        .filter_map(|link| Some(fs::read_link(link.path()).ok()?.display().to_string()))
        .collect();
    names.sort();
    names.join(", ")
}

/// A number that `/proc/PID/status` has.
fn status(pid: i32, name: &str) -> Result<u64> {
    let path = Path::new("/proc").join(pid.to_string()).join("status");
    let text = fs::read_to_string(path)?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no {name} of process {pid}"))
}

fn containers(shared: &Test<'_>) -> Result<()> {
    // Nobody else's containerd.
    let node = Containerd::start(shared.node.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let (all, at_once) = size()?;
    let seed = Random::seed();
    let pod = "pod";
    test.know(pod);
    let models = models(&test, pod)?;
    let tour = test.image("tour")?;
    let survivor = test
        .run(&tour)
        .args(&["sleep", "1000000"])
        .create_with(|spec| spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into())?;
    let survivor = Running::start(&test, &survivor)?;
    survivor.stdout.until("sleeping", PATIENCE)?;
    let daemon = *daemons(test.namespace(), pod)
        .first()
        .context("no daemon")?;

    let churn = || -> Result<()> {
        let random = Random::new(seed);
        // What is made once, such as connections and what is compiled.
        one_of_each(&test, &models)?;
        wave(&test, &models, &random, 0..at_once)?;
        let settled = |what: &State| {
            wait::until(PATIENCE, || {
                let now = state(&node, daemon).ok()?;
                (now.containerd <= what.containerd && now.daemon <= what.daemon).then_some(())
            })
        };
        // Connections of shims that were killed go a while later.
        let mut before = state(&node, daemon)?;
        wait::until(Duration::from_secs(5), || {
            let now = state(&node, daemon).ok()?;
            let still = now == before;
            before = now;
            thread::sleep(Duration::from_millis(200));
            still.then_some(())
        });
        let memory = status(daemon, "RssAnon")?;
        for from in (at_once..all).step_by(at_once) {
            wave(&test, &models, &random, from..(from + at_once).min(all))?;
        }
        settled(&before).with_context(|| {
            let (now, open) = (state(&node, daemon), open(daemon));
            format!("{before:?} has become {now:?}; the shim has open: {open}")
        })?;
        let now = status(daemon, "RssAnon")?;
        eprintln!(
            "churn, containerd {}: {all} containers, {at_once} at once, seed {seed}: {:?}, the \
             shim's memory {memory} KiB before and {now} KiB after",
            node.version(),
            state(&node, daemon)?
        );
        ensure!(
            now <= memory + SLACK,
            "the shim's memory grew from {memory} to {now} KiB"
        );
        Ok(())
    };
    churn().with_context(|| format!("WISP_CHURN_SEED={seed} repeats it"))?;

    ensure!(survivor.end_by(Signal::SIGTERM)?.code == 143, "not 143");
    for model in models {
        test.ctr_ok(&["container", "rm", &model.id])?;
    }
    test.nothing_left()
}
