//! The same calls, to runc's shim and to wisp: the same answers.

use super::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use wisp_tests::api::{Client, Streams, code};
use wisp_tests::run::{RUNC, WISP};
use wisp_tests::{Test, leaks};

pub fn cases() -> Vec<Case> {
    super::cases(
        "same",
        &[
            (
                "calls in every state are answered with the codes of runc's shim",
                states,
            ),
            (
                "calls on executed processes are answered with the codes of runc's shim",
                execs,
            ),
            (
                "executed processes of a task that is paused or ends are as with runc",
                ends,
            ),
        ],
    )
}

/// Each call, in which state, and the code of its answer.
type Answers = Vec<(String, String)>;

/// The calls that make sense in any state and end none.
fn ask(api: &Client, id: &str, state: &str, answers: &mut Answers) {
    let mut note = |call: &str, code: String| answers.push((format!("{state}: {call}"), code));
    note("state", code(&api.state(id)));
    note("pids", code(&api.pids(id)));
    note("metrics", code(&api.metrics(id)));
    note("close io", code(&api.close_stdin(id)));
    note("resize", code(&api.process(id, "").resize(80, 24)));
    note("kill 0", code(&api.kill(id, 0, false)));
    note("kill 999", code(&api.kill(id, 999, false)));
    note(
        "update",
        code(&api.update(id, &json!({ "pids": { "limit": 99 } }))),
    );
    note("update badly", code(&api.update_raw(id, b"{".to_vec())));
    let none = api.process(id, "none");
    note("exec start of none", code(&none.start()));
    note("exec state of none", code(&none.state()));
    note("exec kill of none", code(&none.kill(9)));
    note("exec delete of none", code(&none.delete()));
    note("exec wait of none", code(&none.wait()));
    note("exec close io of none", code(&none.close_stdin()));
    note("exec resize of none", code(&none.resize(80, 24)));
}

fn all(test: &Test<'_>, runtime: &str) -> Result<Answers> {
    let image = test.busybox()?;
    let id = test
        .run(&image)
        .runtime(runtime)
        .args(&["sleep", "1000"])
        .create()?;
    let api = test.api()?;
    let mut answers = Answers::new();
    let streams = Streams::default();
    macro_rules! note {
        ($name:expr, $call:expr) => {
            answers.push(($name.to_owned(), code(&$call)))
        };
    }

    note!("before: create", api.create(&id, &streams));
    ask(api, &id, "created", &mut answers);
    note!("created: create", api.create(&id, &streams));
    note!("created: pause", api.pause(&id));
    note!("created: resume", api.resume(&id));

    note!("created: start", api.start(&id));
    ask(api, &id, "running", &mut answers);
    note!("running: start", api.start(&id));
    note!("running: delete", api.delete(&id));
    note!("running: resume", api.resume(&id));
    note!("running: pause", api.pause(&id));

    ask(api, &id, "paused", &mut answers);
    note!("paused: pause", api.pause(&id));
    note!("paused: start", api.start(&id));
    note!("paused: delete", api.delete(&id));
    note!("paused: resume", api.resume(&id));

    note!(
        "running: kill",
        api.kill(&id, Signal::SIGKILL as i32, false)
    );
    note!("running: wait", api.wait(&id));
    ask(api, &id, "stopped", &mut answers);
    note!(
        "stopped: kill all",
        api.kill(&id, Signal::SIGKILL as i32, true)
    );
    note!("stopped: start", api.start(&id));
    note!("stopped: pause", api.pause(&id));
    note!("stopped: resume", api.resume(&id));
    note!("stopped: wait", api.wait(&id));
    note!("stopped: delete", api.delete(&id));

    ask(api, &id, "deleted", &mut answers);
    note!("deleted: delete", api.delete(&id));
    note!("deleted: start", api.start(&id));
    note!("deleted: pause", api.pause(&id));
    note!("deleted: wait", api.wait(&id));
    test.ctr_ok(&["container", "rm", &id])?;
    Ok(answers)
}

/// The calls on one executed process that neither start nor end it.
fn ask_exec(api: &Client, id: &str, exec: &str, state: &str, answers: &mut Answers) {
    let exec = api.process(id, exec);
    let mut note = |call: &str, code: String| answers.push((format!("{state}: {call}"), code));
    let seen = exec.state().map(|(status, _, code)| (status, code));
    note("state", format!("{} {:?}", code(&seen), seen.ok()));
    note("resize", code(&exec.resize(80, 24)));
    note("close io", code(&exec.close_stdin()));
    note("kill 0", code(&exec.kill(0)));
    note("add again", code(&exec.add(&["true"], &Streams::default())));
}

fn all_execs(test: &Test<'_>, runtime: &str) -> Result<Answers> {
    let image = test.busybox()?;
    let id = test
        .run(&image)
        .runtime(runtime)
        .args(&["sleep", "1000"])
        .create()?;
    let api = test.api()?;
    let mut answers = Answers::new();
    let streams = Streams::default();
    macro_rules! note {
        ($name:expr, $call:expr) => {
            answers.push(($name.to_owned(), code(&$call)))
        };
    }

    note!("create", api.create(&id, &streams));
    let early = api.process(&id, "early");
    note!("created task: add", early.add(&["sleep", "1000"], &streams));
    note!("created task: start", early.start());
    note!("created task: kill", early.kill(9));
    note!("created task: wait", early.wait());
    note!("created task: delete", early.delete());
    note!("start", api.start(&id));

    let exec = api.process(&id, "one");
    note!("added: add", exec.add(&["sleep", "1000"], &streams));
    ask_exec(api, &id, "one", "added", &mut answers);
    note!("added: kill", exec.kill(9));
    note!("started: start", exec.start());
    ask_exec(api, &id, "one", "started", &mut answers);
    note!("started: start", exec.start());
    note!("started: delete", exec.delete());
    note!("started: kill", exec.kill(9));
    note!("started: wait", exec.wait());
    ask_exec(api, &id, "one", "ended", &mut answers);
    note!("ended: kill", exec.kill(9));
    note!("ended: start", exec.start());
    note!("ended: wait", exec.wait());
    note!("ended: delete", exec.delete());
    note!("deleted: delete", exec.delete());
    ask_exec(api, &id, "none", "never added", &mut answers);

    let unstarted = api.process(&id, "two");
    note!("unstarted: add", unstarted.add(&["true"], &streams));
    note!("unstarted: delete", unstarted.delete());
    let missing = api.process(&id, "missing");
    note!("missing: add", missing.add(&["no-such-program"], &streams));
    note!("missing: start", missing.start());
    ask_exec(api, &id, "missing", "missing", &mut answers);
    note!("missing: delete", missing.delete());
    let wrong = api.process(&id, "wrong");
    note!(
        "wrong: add",
        wrong.add_with(&json!({ "args": 7 }), &streams)
    );
    note!("wrong: state", wrong.state());

    // The end is not compared: runc's shim 2.1 dies of it after some of the
    // refused calls above, and leaves its socket.
    let _ = api.kill(&id, Signal::SIGKILL as i32, false);
    let _ = api.wait(&id);
    let _ = api.delete(&id);
    test.ctr_ok(&["container", "rm", &id])?;
    if runtime == RUNC {
        // The second one is for debugging.
        for name in [id.clone(), format!("{id}/debug")] {
            let _ = std::fs::remove_file(leaks::socket(test.node, test.namespace(), &name));
        }
    }
    Ok(answers)
}

/// What becomes of an executed process when its container is paused and ends.
fn all_ends(test: &Test<'_>, runtime: &str) -> Result<Answers> {
    let image = test.busybox()?;
    let id = test
        .run(&image)
        .runtime(runtime)
        .args(&["sleep", "1000"])
        .create()?;
    let api = test.api()?;
    let mut answers = Answers::new();
    let streams = Streams::default();
    macro_rules! note {
        ($name:expr, $call:expr) => {
            answers.push(($name.to_owned(), code(&$call)))
        };
    }

    note!("create", api.create(&id, &streams));
    note!("start", api.start(&id));
    let kept = api.process(&id, "kept");
    let late = api.process(&id, "late");
    note!("running: add", kept.add(&["sleep", "1000"], &streams));
    note!("pause", api.pause(&id));
    note!("paused: add", late.add(&["true"], &streams));
    note!("paused: state", kept.state());
    note!("resume", api.resume(&id));
    note!("resumed: start", kept.start());
    note!("kill task", api.kill(&id, Signal::SIGKILL as i32, false));
    note!("wait task", api.wait(&id));
    note!("stopped: wait", kept.wait());
    note!("stopped: add", late.add(&["true"], &streams));
    note!("stopped: delete", kept.delete());
    note!("delete task", api.delete(&id));
    note!("deleted: add", late.add(&["true"], &streams));
    test.ctr_ok(&["container", "rm", &id])?;
    Ok(answers)
}

fn states(test: &Test<'_>) -> Result<()> {
    compare(&all(test, RUNC)?, &all(test, WISP)?)
}

fn execs(test: &Test<'_>) -> Result<()> {
    compare(&all_execs(test, RUNC)?, &all_execs(test, WISP)?)
}

fn ends(test: &Test<'_>) -> Result<()> {
    compare(&all_ends(test, RUNC)?, &all_ends(test, WISP)?)
}

fn compare(runc: &Answers, wisp: &Answers) -> Result<()> {
    let differing: Vec<String> = runc
        .iter()
        .zip(wisp)
        .filter(|(theirs, ours)| theirs != ours)
        .map(|((call, theirs), (_, ours))| format!("{call}: runc {theirs}, wisp {ours}"))
        .collect();
    ensure!(
        differing.is_empty() && runc.len() == wisp.len(),
        "{} of {} answers differ:\n  {}",
        differing.len(),
        runc.len(),
        differing.join("\n  ")
    );
    Ok(())
}
