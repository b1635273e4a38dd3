//! Many pods come and go, and some of what runs them is killed; then everything
//! is as it was.
//!
//! `WISP_CHURN_PODS=200/10` is how many and how many at once, and
//! `WISP_CHURN_SEED` repeats a run. `make churn` is the long form.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::thread;
use wisp_tests::cri::{Node, Test};
use wisp_tests::images::Images;
use wisp_tests::random::Random;
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    super::cases(
        "churn",
        &[("many pods come and go, and all is as it was", pods)],
    )
}

/// The short form: how many pods, and how many of them at once.
const SHORT: (usize, usize) = (6, 3);

fn size() -> Result<(usize, usize)> {
    let Ok(text) = std::env::var("WISP_CHURN_PODS") else {
        return Ok(SHORT);
    };
    let (all, wave) = text.split_once('/').context("WISP_CHURN_PODS is not N/M")?;
    Ok((all.parse()?, wave.parse()?))
}

/// What happens to a pod before it is stopped and removed.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Nothing.
    None,
    /// The host kills its server.
    Server,
    /// The host kills its pause container.
    Pause,
    /// Its containers are stopped one by one.
    Stops,
}

const FATES: [Fate; 5] = [
    Fate::None,
    Fate::None,
    Fate::Server,
    Fate::Pause,
    Fate::Stops,
];

fn killed(pid: u32) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?)
}

/// One pod's life. That nothing is left of it is checked by its test.
fn live(test: &Test<'_>, number: usize, mut random: Random) -> Result<()> {
    let pod = test.pod(&format!("churned{number}")).run()?;
    let server = pod.container("server", &test.image("http-02")?).start()?;
    let native = pod
        .container("native", &test.busybox()?)
        .args(&["sleep", "1000"])
        .start()?;
    let job = pod
        .container("job", &test.image("hello")?)
        .start()?
        .wait()?;
    ensure!(job.exit_code == 0, "{job:?}");
    match random.one(&FATES) {
        Fate::None => {}
        Fate::Server => {
            killed(server.pid()?)?;
            let status = server.wait()?;
            ensure!(status.exit_code == 137, "{status:?}");
        }
        Fate::Pause => killed(pod.pid()?)?,
        Fate::Stops => {
            server.stop(30)?;
            native.stop(0)?;
        }
    }
    Ok(())
}

fn wave(
    node: &Node,
    images: &Images,
    random: &Random,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    thread::scope(|scope| {
        let lives: Vec<_> = numbers
            .map(|number| {
                let random = random.of(number);
                scope.spawn(move || {
                    let test = Test::new(node, images)?;
                    live(&test, number, random)?;
                    test.nothing_left()
                })
            })
            .collect();
        for life in lives {
            life.join().ok().context("a thread panicked")??;
        }
        Ok(())
    })
}

/// How much there is of what pods have. Their own things are looked for by name.
#[derive(Debug)]
struct State {
    descriptors: usize,
    cables: usize,
    namespaces: usize,
    mounts: usize,
}

fn state(node: &Node) -> Result<State> {
    let containerd = node.as_ref();
    let dir = containerd.dir().display().to_string();
    Ok(State {
        descriptors: fs::read_dir(format!("/proc/{}/fd", containerd.pid()))?.count(),
        cables: node.network().cables().len(),
        namespaces: wisp_tests::leaks::children(&containerd.state().join("netns")).len(),
        mounts: wisp_tests::leaks::mounts()
            .iter()
            .filter(|mount| mount.contains(&dir))
            .count(),
    })
}

fn pods(shared: &Test<'_>) -> Result<()> {
    // Nobody else's containerd.
    let node = Node::start(shared.version())?;
    let images = Images::new()?;
    let (all, at_once) = size()?;
    let seed = Random::seed();
    let churn = || -> Result<()> {
        let random = Random::new(seed);
        let test = Test::new(&node, &images)?;
        let survivor = test.pod("survivor").run()?;
        let server = survivor
            .container("server", &test.image("http-02")?)
            .start()?;
        // What is made once, such as connections and what is compiled.
        wave(&node, &images, &random, 0..at_once)?;
        let mut before = state(&node)?;
        wait::until(PATIENCE, || {
            thread::sleep(std::time::Duration::from_millis(200));
            let now = state(&node).ok()?;
            let still = now.descriptors >= before.descriptors;
            before = now;
            still.then_some(())
        });
        for from in (at_once..all).step_by(at_once) {
            wave(&node, &images, &random, from..(from + at_once).min(all))?;
        }
        let settled = wait::until(PATIENCE, || {
            let now = state(&node).ok()?;
            (now.descriptors <= before.descriptors
                && now.cables == before.cables
                && now.namespaces == before.namespaces
                && now.mounts == before.mounts)
                .then_some(())
        });
        let now = state(&node)?;
        settled.with_context(|| format!("{before:?} has become {now:?}"))?;
        eprintln!(
            "churn, containerd {}: {all} pods, {at_once} at once, seed {seed}: {now:?}",
            test.version()
        );
        let status = server.status()?;
        ensure!(
            status.finished_at == 0,
            "the survivor has ended: {status:?}"
        );
        test.nothing_left()
    };
    churn().with_context(|| format!("WISP_CHURN_SEED={seed} repeats it"))
}
