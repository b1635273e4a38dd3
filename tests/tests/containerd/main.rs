//! The suites: each test runs under every containerd there is.
//!
//! `cargo test --release -p wisp-tests [-- FILTER]`; a filter is part of a
//! test's name, such as `1.6` or `http`.

mod suites;

use libtest_mimic::{Arguments, Failed, Trial};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use suites::Case;
use wisp_tests::images::Images;
use wisp_tests::leaks::Snapshot;
use wisp_tests::{Containerd, Test, Version, paths};

/// Most of a test's time is waiting for other processes.
const THREADS: usize = 4;

/// Containerds by version, shared by the tests of this run. Taken out at the
/// end, or by the handler of Ctrl-C, so that they are stopped either way.
type Nodes = Arc<Mutex<Vec<Arc<Containerd>>>>;

/// Set once a signal has come: no test begins any more.
static STOPPING: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Where and why the test of this thread panicked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wisp-tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let cases = suites::all();
    if arguments.list {
        let conclusion = libtest_mimic::run(&arguments, trials(&cases, &[], &[]));
        return Ok(conclusion.exit_code());
    }

    paths::check()?;
    let before = Snapshot::take();
    let nodes = Nodes::default();
    stop_on_signals(Arc::clone(&nodes))?;
    let mut missing = Vec::new();
    for version in Version::ALL {
        match version.obtain() {
            Ok(()) => {
                let node = Arc::new(Containerd::start(version)?);
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
    let conclusion = libtest_mimic::run(&arguments, trials(&cases, &running, &missing));
    let _ = panic::take_hook();
    drop(running);
    nodes.lock().unwrap_or_else(PoisonError::into_inner).clear();

    let left = before.new_since();
    if !left.is_empty() {
        eprintln!("wisp-tests: left on the machine:\n  {}", left.join("\n  "));
        return Ok(ExitCode::FAILURE);
    }
    Ok(conclusion.exit_code())
}

/// Every case under every containerd that runs. One that is missing is a
/// failure in CI and else a test that is shown as ignored.
fn trials(cases: &[Case], nodes: &[Arc<Containerd>], missing: &[(Version, String)]) -> Vec<Trial> {
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
            if !(case.on)(node.version()) {
                continue;
            }
            let name = format!("{} {}: {}", node.version(), case.suite, case.name);
            let (node, images, test) = (Arc::clone(node), images.clone(), case.test);
            trials.push(Trial::test(name, move || one(&node, &*images?, test)));
        }
        if nodes.is_empty() && missing.is_empty() {
            let name = format!("{}: {}", case.suite, case.name);
            trials.push(Trial::test(name, || Ok(())));
        }
    }
    trials
}

fn one(node: &Containerd, images: &Images, body: suites::Body) -> Result<(), Failed> {
    while STOPPING.load(Ordering::Relaxed) {
        std::thread::park();
    }
    let test = Test::new(node, images)?;
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        body(&test).and_then(|()| test.nothing_left())
    }));
    let reason = match ended {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => PANIC
            .with(|panic| panic.borrow_mut().take())
            .unwrap_or_else(|| "panicked".to_owned()),
    };
    let reason = match node.ended() {
        Some(end) => format!("{reason}\n{end}"),
        None => reason,
    };
    Err(Failed::from(format!(
        "{reason}\n--- containerd's log about {}\n{}",
        test.namespace(),
        node.log_about(test.namespace())
    )))
}

/// Ctrl-C and SIGTERM stop the containerds, too.
fn stop_on_signals(nodes: Nodes) -> anyhow::Result<()> {
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
            node.stop();
        }
        wisp_tests::containerd::sweep_all();
        std::process::exit(128 + signal);
    });
    Ok(())
}
