//! Calls that many clients make at once, and in no order that makes sense: the
//! answers of runc's shim.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use wisp_tests::api::{Client, Streams, code};
use wisp_tests::run::{RUNC, WISP};
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, leaks, processes};

pub fn cases() -> Vec<Case> {
    super::cases(
        "together",
        &[
            (
                "of many clients that create, start and delete one does",
                one_wins,
            ),
            (
                "all of many clients may wait and kill, as with runc",
                all_may,
            ),
            ("calls out of order are refused as with runc", out_of_order),
            (
                "whatever many clients ask at once, nothing is left of it",
                at_random,
            ),
        ],
    )
}

/// How many ask at once.
const CLIENTS: usize = 8;

/// How often each answer was given.
type Answers = BTreeMap<String, usize>;

/// Has many clients make the same call at the same time.
fn at_once(test: &Test<'_>, call: impl Fn(&Client) -> String + Sync) -> Result<Answers> {
    let (node, namespace) = (test.node, test.namespace());
    let barrier = Barrier::new(CLIENTS);
    let answers = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let client = Client::connect(node, namespace);
                    barrier.wait();
                    client.map(|client| call(&client))
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().ok().context("a client panicked")?)
            .collect::<Result<Vec<_>>>()
    })?;
    let mut counted = Answers::new();
    for answer in answers {
        *counted.entry(answer).or_default() += 1;
    }
    Ok(counted)
}

/// What each kind of call was answered with, all in all.
type Record = Vec<(&'static str, Answers)>;

fn both(test: &Test<'_>, run: impl Fn(&str) -> Result<Record>) -> Result<()> {
    let runc = run(RUNC)?;
    end_shims_of_runc(test);
    let wisp = run(WISP)?;
    ensure!(runc == wisp, "runc: {runc:#?}\nwisp: {wisp:#?}");
    Ok(())
}

/// On a busy machine some of runc's shims stay after Deletes that meet. That is
/// theirs, and no leak of the test's.
fn end_shims_of_runc(test: &Test<'_>) {
    let shims = || {
        processes::all().into_iter().filter(|process| {
            process.line.contains("containerd-shim-runc-v2")
                && process.line.contains(test.namespace())
        })
    };
    if wait::until(Duration::from_secs(5), || {
        shims().next().is_none().then_some(())
    })
    .is_some()
    {
        return;
    }
    for shim in shims() {
        let _ = kill(Pid::from_raw(shim.pid), Signal::SIGKILL);
        let mut words = shim.line.split(' ');
        if let (Some(_), Some(id)) = (words.find(|word| *word == "-id"), words.next()) {
            let _ = fs::remove_file(leaks::socket(test.node, test.namespace(), id));
        }
    }
}

fn one_wins(test: &Test<'_>) -> Result<()> {
    both(test, |runtime| {
        let image = test.busybox()?;
        let run = test.run(&image).runtime(runtime);
        let id = run.args(&["sleep", "1000"]).create()?;
        let streams = Streams::default();
        let record = vec![
            // containerd says with one code or the other that there is one already:
            // it depends on whether the first is on record by then.
            (
                "create",
                at_once(test, |api| {
                    match api.create(&id, &streams) {
                        Ok(_) => "created",
                        Err(_) => "refused",
                    }
                    .to_owned()
                })?,
            ),
            ("start", at_once(test, |api| code(&api.start(&id)))?),
        ];
        test.api()?.kill(&id, Signal::SIGKILL as i32, false)?;
        test.api()?.wait(&id)?;
        // How runc's shim answers differs from run to run, and it may refuse all.
        let deleted = at_once(test, |api| match api.delete(&id) {
            Ok(code) => format!("{code}"),
            Err(_) => "refused".to_owned(),
        })?;
        if runtime == WISP {
            let one = Answers::from([("137".to_owned(), 1), ("refused".to_owned(), CLIENTS - 1)]);
            ensure!(deleted == one, "{deleted:?}");
        }
        test.ctr_ok(&["container", "rm", &id])?;
        Ok(record)
    })
}

fn all_may(test: &Test<'_>) -> Result<()> {
    both(test, |runtime| {
        let image = test.busybox()?;
        let run = test.run(&image).runtime(runtime);
        // It ends by no signal but SIGKILL.
        let id = run.args(&["sleep", "1000"]).create()?;
        let api = test.api()?;
        let pid = api.create(&id, &Streams::default())?;
        api.start(&id)?;
        // Before that it is runc's, which does end by the signal.
        let runs = || {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .ok()?
                .starts_with("sleep")
                .then_some(())
        };
        wait::until(PATIENCE, runs).context("the program does not run")?;
        let term = Signal::SIGTERM as i32;
        // Of those that runc's shim asks at once, runc finds no container now and then.
        let killed = at_once(test, |api| code(&api.kill(&id, term, false)))?;
        if runtime == WISP {
            ensure!(
                killed == Answers::from([("Ok".to_owned(), CLIENTS)]),
                "{killed:?}"
            );
        }
        let mut record = vec![(
            "state",
            at_once(test, |api| format!("{:?}", api.state(&id).map(|s| s.0)))?,
        )];
        let ended = at_once(test, |api| {
            // One of them ends it, and all hear of it.
            let _ = api.kill(&id, Signal::SIGKILL as i32, false);
            format!("{:?}", api.wait(&id))
        })?;
        record.push(("wait", ended));
        api.delete(&id)?;
        test.ctr_ok(&["container", "rm", &id])?;
        Ok(record)
    })
}

fn out_of_order(test: &Test<'_>) -> Result<()> {
    both(test, |runtime| {
        let image = test.busybox()?;
        let run = test.run(&image).runtime(runtime);
        let id = run.args(&["sleep", "1000"]).create()?;
        let api = test.api()?;
        let streams = Streams::default();
        let mut record = Record::new();
        let mut note = |call, code: String| record.push((call, Answers::from([(code, 1)])));
        // Of a container that has no task (yet).
        note("start", code(&api.start(&id)));
        note("kill", code(&api.kill(&id, Signal::SIGKILL as i32, false)));
        note("delete", code(&api.delete(&id)));
        note("wait", code(&api.wait(&id)));
        note("state", code(&api.state(&id)));
        note("pause", code(&api.pause(&id)));
        note("resume", code(&api.resume(&id)));
        // Deleted before it was started, and created again.
        note("create", code(&api.create(&id, &streams)));
        note("delete created", code(&api.delete(&id)));
        note("delete again", code(&api.delete(&id)));
        note("create again", code(&api.create(&id, &streams)));
        note(
            "kill created",
            code(&api.kill(&id, Signal::SIGKILL as i32, false)),
        );
        note("wait killed", format!("{:?}", api.wait(&id).ok()));
        note("start killed", code(&api.start(&id)));
        note(
            "kill killed",
            code(&api.kill(&id, Signal::SIGKILL as i32, false)),
        );
        note("delete killed", code(&api.delete(&id)));
        note("start deleted", code(&api.start(&id)));
        test.ctr_ok(&["container", "rm", &id])?;
        Ok(record)
    })
}

fn at_random(test: &Test<'_>) -> Result<()> {
    let (busybox, tour) = (test.busybox()?, test.image("tour")?);
    for (image, args) in [(&busybox, ["sleep", "1000"]), (&tour, ["sleep", "1000000"])] {
        for _ in 0..3 {
            let id = test.run(image).args(&args).create()?;
            let streams = Streams::default();
            at_once(test, |api| {
                // Each goes through a life as if it were alone.
                let answers = [
                    code(&api.create(&id, &streams)),
                    code(&api.start(&id)),
                    code(&api.state(&id)),
                    code(&api.kill(&id, Signal::SIGKILL as i32, true)),
                    code(&api.wait(&id)),
                    code(&api.delete(&id)),
                ];
                answers.join(" ")
            })?;
            // Somebody may have created it once more at the end.
            let api = test.api()?;
            let _ = api.kill(&id, Signal::SIGKILL as i32, true);
            let _ = api.wait(&id);
            let _ = api.delete(&id);
            test.ctr_ok(&["container", "rm", &id])?;
        }
    }
    Ok(())
}
