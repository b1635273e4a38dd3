//! Each way for a guest to end: by itself, by a trap, by a signal.

use super::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use wisp_tests::Test;
use wisp_tests::wait::PATIENCE;

pub fn cases() -> Vec<Case> {
    super::cases(
        "endings",
        &[
            ("exit codes are the guest's own", exit_codes),
            ("a 0.3 command's exit codes are its own", exit_codes_03),
            ("a trap exits 134 with the functions' names on stderr", trap),
            (
                "a stack that overflows is a trap like any other",
                stack_overflow,
            ),
            (
                "a division by zero and a read out of bounds are traps",
                core_traps,
            ),
            ("SIGKILL ends a guest with 137", killed),
            (
                "SIGTERM ends a spinning guest with 143",
                terminated_spinning,
            ),
            (
                "SIGTERM ends a sleeping guest with 143",
                terminated_sleeping,
            ),
            (
                "SIGTERM ends a guest that waits for stdin with 143",
                terminated_reading,
            ),
            (
                "SIGINT, SIGHUP and SIGQUIT end a guest with 128 and their number",
                other_signals,
            ),
        ],
    )
}

fn exit_codes(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        for code in [0, 1, 7, 125] {
            let ended = test.run(&image).args(&["exit", &code.to_string()]).ctr()?;
            ensure!(ended.code == code, "{guest}: {ended:?} for {code}");
        }
    }
    Ok(())
}

fn exit_codes_03(test: &Test<'_>) -> Result<()> {
    let image = test.image("command-03")?;
    for (args, code) in [(&["exit", "7"][..], 7), (&["fail"], 1), (&["trap"], 134)] {
        let ended = test.run(&image).args(args).ctr()?;
        ensure!(ended.code == code, "{args:?}: {ended:?}");
    }
    Ok(())
}

fn trap(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let ended = test.run(&image).args(&["trap"]).ctr()?;
        let err = ended.err();
        ensure!(ended.code == 134, "{guest}: {ended:?}");
        ensure!(err.contains("unreachable"), "{guest}: no reason in {err}");
        for name in ["inner", "middle", "outer"] {
            ensure!(err.contains(name), "{guest}: no {name} in {err}");
        }
        let ended = test.run(&image).args(&["trap", "panic"]).ctr()?;
        ensure!(ended.code == 134, "{guest}: {ended:?}");
        ensure!(
            ended.err().contains("the tour ends here"),
            "{guest}: {}",
            ended.err()
        );
    }
    Ok(())
}

fn stack_overflow(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let ended = test.run(&image).args(&["trap", "stack"]).ctr()?;
        ensure!(
            ended.code == 134,
            "{guest}: {}: {}",
            ended.code,
            ended.err()
        );
        ensure!(ended.err().contains("stack"), "{guest}: {}", ended.err());
    }
    Ok(())
}

fn core_traps(test: &Test<'_>) -> Result<()> {
    for (guest, reason, name) in [
        ("divide-by-zero", "divide by zero", "divide_by"),
        ("out-of-bounds", "out of bounds", "read_past_the_end"),
    ] {
        let image = test.image(guest)?;
        let ended = test.run(&image).ctr()?;
        let err = ended.err();
        ensure!(ended.code == 134, "{guest}: {ended:?}");
        ensure!(err.contains(reason) && err.contains(name), "{guest}: {err}");
    }
    Ok(())
}

fn ends_by(test: &Test<'_>, args: &[&str], ready: &str, signal: Signal, code: i32) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let running = test.run(&image).args(args).start()?;
        running.stdout.until(ready, PATIENCE)?;
        let ended = running.end_by(signal)?;
        ensure!(ended.code == code, "{guest} {args:?}: {ended:?}");
    }
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    ends_by(test, &["spin"], "spinning", Signal::SIGKILL, 137)
}

fn terminated_spinning(test: &Test<'_>) -> Result<()> {
    ends_by(test, &["spin"], "spinning", Signal::SIGTERM, 143)
}

fn terminated_sleeping(test: &Test<'_>) -> Result<()> {
    ends_by(
        test,
        &["sleep", "3600000"],
        "sleeping",
        Signal::SIGTERM,
        143,
    )
}

fn terminated_reading(test: &Test<'_>) -> Result<()> {
    use wisp_tests::api::Streams;
    use wisp_tests::fifo::{self, Reader};
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["cat"]).create()?;
    let mut stdin = fifo::writer(&test.dir().join("stdin"))?;
    let stdout = Reader::new(&test.dir().join("stdout"))?;
    let streams = Streams {
        stdin: test.dir().join("stdin").display().to_string(),
        stdout: stdout.path(),
        stderr: String::new(),
        ..Streams::default()
    };
    let api = test.api()?;
    api.create(&id, &streams)?;
    api.start(&id)?;
    std::io::Write::write_all(&mut stdin, b"there\n")?;
    stdout.until("there", PATIENCE)?;
    api.kill(&id, Signal::SIGTERM as i32, false)?;
    let code = api.wait(&id)?;
    ensure!(code == 143, "exited {code}");
    api.delete(&id)?;
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn other_signals(test: &Test<'_>) -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        ends_by(test, &["spin"], "spinning", signal, 128 + signal as i32)?;
    }
    Ok(())
}
