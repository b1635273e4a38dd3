//! Running suites: each case under every containerd there is, side by side,
//! and the proof at the end that the machine is as it was.

use crate::images::Images;
use crate::leaks::Snapshot;
use crate::{Containerd, Version, paths};
use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Most of a test's time is waiting for other processes.
const THREADS: usize = 4;

/// What the tests of one program run in.
pub trait World: Copy + std::fmt::Debug + 'static {
    /// A containerd, set up as these tests need it.
    type Node: AsRef<Containerd> + Send + Sync + 'static;
    /// What one test is given.
    type Test<'a>;
    /// What a test does. It must leave nothing behind, which is checked for it.
    type Body: Copy + std::fmt::Debug + Send + 'static;

    /// Starts a containerd.
    ///
    /// # Errors
    /// When it does not come up.
    fn start(version: Version) -> Result<Self::Node>;

    /// Stops it and removes all that is left of it. May be called again.
    fn stop(node: &Self::Node);

    /// Makes what a test is given.
    ///
    /// # Errors
    /// When that cannot be made.
    fn test<'a>(node: &'a Self::Node, images: &'a Images) -> Result<Self::Test<'a>>;

    /// Runs a test.
    ///
    /// # Errors
    /// What it found wrong.
    fn run(test: &Self::Test<'_>, body: Self::Body) -> Result<()>;

    /// Proves that a test which succeeded has left nothing.
    ///
    /// # Errors
    /// What is left.
    fn nothing_left(test: &Self::Test<'_>) -> Result<()>;

    /// What containerd's log has about a test, to be shown when it fails.
    fn log_about(test: &Self::Test<'_>) -> String;
}

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Case<W: World> {
    /// Which suite it is of.
    pub suite: &'static str,
    /// What it shows, as a sentence.
    pub name: &'static str,
    /// The containerds it makes sense under.
    pub on: fn(Version) -> bool,
    /// What it does.
    pub test: W::Body,
}

/// A suite's tests, for every containerd.
pub fn cases<W: World>(suite: &'static str, tests: &[(&'static str, W::Body)]) -> Vec<Case<W>> {
    tests
        .iter()
        .map(|&(name, test)| Case {
            suite,
            name,
            on: |_| true,
            test,
        })
        .collect()
}

/// Containerds by version, shared by the tests of this run. Taken out at the
/// end, or by the handler of Ctrl-C, so that they are stopped either way.
type Nodes<W> = Arc<Mutex<Vec<Arc<<W as World>::Node>>>>;

/// Set once a signal has come: no test begins any more.
static STOPPING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Where and why the test of this thread panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The `main` of a test program.
pub fn main<W: World>(cases: &[Case<W>]) -> ExitCode {
    match run(cases) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wisp-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run<W: World>(cases: &[Case<W>]) -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    if arguments.list {
        let conclusion = libtest_mimic::run(&arguments, trials(cases, &[], &[]));
        return Ok(conclusion.exit_code());
    }

    paths::check()?;
    let before = Snapshot::take();
    let nodes = Nodes::<W>::default();
    stop_on_signals::<W>(Arc::clone(&nodes))?;
    let mut missing = Vec::new();
    for version in Version::ALL {
        match version.obtain() {
            Ok(()) => {
                let node = Arc::new(W::start(version)?);
                nodes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(node);
            }
            Err(reason) => missing.push((version, reason)),
        }
    }
    for (version, reason) in &missing {
        eprintln!("wisp-tests: SKIPPED everything under containerd {version}: {reason}");
    }
    let running = nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
    }));
    let conclusion = libtest_mimic::run(&arguments, trials(cases, &running, &missing));
    let _ = panic::take_hook();
    drop(running);
    for node in nodes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        W::stop(&node);
    }

    let left = before.new_since();
    if !left.is_empty() {
        eprintln!("wisp-tests: left on the machine:\n  {}", left.join("\n  "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(conclusion.exit_code())
}

/// Every case under every containerd that runs. One that is missing is a
/// failure in CI and else a test that is shown as ignored.
fn trials<W: World>(
    cases: &[Case<W>],
    nodes: &[Arc<W::Node>],
    missing: &[(Version, String)],
) -> Vec<Trial> {
    let images = Images::new().map(Arc::new).map_err(|e| format!("{e:#}"));
    let mut trials = Vec::new();
    for (version, reason) in missing {
        let reason = format!("containerd {version} is missing: {reason}");
        let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
        trials.push(
            Trial::test(format!("containerd {version} is there"), move || {
                Err(Failed::from(reason))
            })
            .with_ignored_flag(!ci),
        );
    }
    for case in cases {
        for node in nodes {
            let version = W::Node::as_ref(node).version();
            if !(case.on)(version) {
                continue;
            }
            let name = format!("{version} {}: {}", case.suite, case.name);
            let (node, images, test) = (Arc::clone(node), images.clone(), case.test);
            trials.push(Trial::test(name, move || one::<W>(&node, &*images?, test)));
        }
        if nodes.is_empty() && missing.is_empty() {
            let name = format!("{}: {}", case.suite, case.name);
            trials.push(Trial::test(name, || Ok(())));
        }
    }
    trials
}

fn one<W: World>(node: &W::Node, images: &Images, body: W::Body) -> Result<(), Failed> {
    while STOPPING.load(Ordering::Relaxed) {
        std::thread::park();
    }
    let test = W::test(node, images)?;
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        W::run(&test, body).and_then(|()| W::nothing_left(&test))
    }));
    let reason = match ended {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => PANIC
            .with(|panic| panic.borrow_mut().take())
            .unwrap_or_else(|| "panicked".to_owned()),
    };
    let reason = match node.as_ref().ended() {
        Some(end) => format!("{reason}\n{end}"),
        None => reason,
    };
    Err(Failed::from(format!(
        "{reason}\n--- containerd's log about it\n{}",
        W::log_about(&test)
    )))
}

/// Ctrl-C and SIGTERM stop the containerds, too.
fn stop_on_signals<W: World>(nodes: Nodes<W>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let signal = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => Ok(2),
                _ = terminate.recv() => Ok::<i32, std::io::Error>(15),
            }
        });
        let Ok(signal) = signal else { return };
        STOPPING.store(true, Ordering::Relaxed);
        let nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for node in nodes.iter() {
            W::stop(node);
        }
        crate::containerd::sweep_all();
        std::process::exit(128 + signal);
    });
    Ok(())
}
