//! The same calls, to runc's shim and to wisp: the same answers.

use super::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use wisp_tests::Test;
use wisp_tests::api::{Client, Streams, code};
use wisp_tests::run::{RUNC, WISP};

pub fn cases() -> Vec<Case> {
    super::cases(
        "same",
        &[(
            "calls in every state are answered with the codes of runc's shim",
            states,
        )],
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

fn states(test: &Test<'_>) -> Result<()> {
    let (runc, wisp) = (all(test, RUNC)?, all(test, WISP)?);
    let differing: Vec<String> = runc
        .iter()
        .zip(&wisp)
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
