//! wisp on a node whose containerd is a unit of systemd's, at the paths where
//! distributions have everything: it comes, is upgraded and goes, by `wisp node`
//! and by a pod of the installer's image, under the containerd that it changes.
//!
//! Only in the machine of `make test-vm`; elsewhere there is one ignored test
//! that says so.

mod machine;
mod suites;

use libtest_mimic::{Arguments, Failed, Trial};
use machine::Machine;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use wisp_tests::unit::Unit;
use wisp_tests::{Version, paths};

/// The machine as it is now: one containerd at a time.
type Now = Arc<Mutex<Option<Machine>>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One machine, changed by one test after another.
    arguments.test_threads = Some(1);
    if !Unit::may_start() {
        let elsewhere = Trial::test("node: only in the machine of `make test-vm`", || Ok(()));
        return libtest_mimic::run(&arguments, vec![elsewhere.with_ignored_flag(true)]).exit_code();
    }
    if let Err(error) = paths::check() {
        eprintln!("wisp-tests: {error:#}");
        return ExitCode::FAILURE;
    }
    let now = Now::default();
    let trials = Version::ALL
        .into_iter()
        .flat_map(|version| suites::all().into_iter().map(move |case| (version, case)))
        .filter(|(version, case)| (case.on)(*version))
        .map(|(version, case)| {
            let now = Arc::clone(&now);
            let name = format!("{version} {}: {}", case.suite, case.name);
            Trial::test(name, move || one(&now, version, &case))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(now.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

fn one(now: &Now, version: Version, case: &suites::Case) -> Result<(), Failed> {
    let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
    if now.as_ref().is_none_or(|now| now.version() != version) {
        // The other is stopped before this one starts.
        drop(now.take());
        version.obtain()?;
        *now = Some(Machine::start(version)?);
    }
    let machine = now.as_ref().ok_or("no machine")?;
    match machine.run(case.test) {
        Ok(()) => Ok(()),
        Err(error) => {
            let log = machine.log();
            // What is left of it is no concern of the next one.
            drop(now.take());
            // At once: the machine may be stopped before the end.
            eprintln!("{}: {error:#}", case.name);
            Err(Failed::from(format!("{error:#}\n--- the journal\n{log}")))
        }
    }
}
