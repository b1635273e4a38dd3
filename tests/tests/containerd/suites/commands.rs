//! Guests that run to an end, and each way to end.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Running, Test, oci, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "commands",
        &[
            ("a component says hello and exits 0", hello),
            ("a core module says hello and exits 0", hello_module),
            ("a 0.3 command says hello and exits 0", hello_03),
            ("a C program says hello and gets its arguments", hello_c),
            ("a Go program says hello and gets its arguments", hello_go),
            (
                "of an image for several platforms this machine's program runs",
                platforms,
            ),
            ("arguments arrive as they are", arguments),
            ("the environment is the container's", environment),
            ("clocks and randomness work", clocks_and_random),
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
            (
                "the process that runs a guest keeps no privileges",
                no_privileges,
            ),
            (
                "a seccomp profile is on a guest, too, and lets it work",
                under_seccomp,
            ),
            (
                "a guest runs as the user that the spec names, in the container's control group",
                user_and_group,
            ),
            (
                "a guest's compiled code is kept and used again",
                compiled_once,
            ),
        ],
    )
}

fn says(test: &Test<'_>, guest: &str, args: &[&str], expected: &str) -> Result<()> {
    let image = test.image(guest)?;
    let ended = test.run(&image).args(args).ctr()?;
    ensure!(ended.code == 0, "{guest}: {ended:?}\n{}", ended.err());
    ensure!(
        ended.out() == expected,
        "{guest} {args:?}: {:?}",
        ended.out()
    );
    ensure!(ended.stderr.is_empty(), "{guest}: {}", ended.err());
    Ok(())
}

fn hello(test: &Test<'_>) -> Result<()> {
    says(test, "hello", &[], "hello from a component\n")
}

fn hello_module(test: &Test<'_>) -> Result<()> {
    says(test, "hello-module", &[], "hello from a core module\n")
}

fn hello_03(test: &Test<'_>) -> Result<()> {
    says(test, "command-03", &[], "hello from wasi:cli 0.3\n")?;
    says(test, "command-03", &["args", "a", "b"], "a\nb\n")
}

fn hello_c(test: &Test<'_>) -> Result<()> {
    says(
        test,
        "hello-c",
        &["one", "two"],
        "hello from C\nargument 1: one\nargument 2: two\n",
    )
}

fn hello_go(test: &Test<'_>) -> Result<()> {
    says(
        test,
        "hello-go",
        &["one"],
        "hello from Go\nargument 1: one\n",
    )
}

fn platforms(test: &Test<'_>) -> Result<()> {
    let ours = format!("linux/{}", oci::architecture());
    let module = paths::guest("hello-module")?;
    let more = [
        &module.display().to_string(),
        "--platform",
        &ours,
        "--platform",
        "linux/s390x",
    ];
    let image = test.packed("platforms", &paths::guest("hello")?, &more)?;
    let ended = test.run(&image).ctr()?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(ended.out() == "hello from a component\n", "{ended:?}");
    Ok(())
}

fn arguments(test: &Test<'_>) -> Result<()> {
    let words = ["a b", "", "--flag", "é\u{1f600}", "$HOME"];
    let lines: String = words.iter().map(|word| format!("{word}\n")).collect();
    for guest in ["tour", "tour-module"] {
        let mut args = vec!["args"];
        args.extend(words);
        says(test, guest, &args, &lines)?;
    }
    Ok(())
}

fn environment(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let ended = test
            .run(&image)
            .env("GREETING", "hello = world")
            .args(&["env"])
            .ctr()?;
        ensure!(ended.code == 0, "{ended:?}");
        let out = ended.out();
        ensure!(
            out.lines().any(|line| line == "GREETING=hello = world"),
            "{out}"
        );
        // Nothing of the node's own environment.
        ensure!(
            !out.contains("WISP_CONFIG") && !out.contains("TTRPC"),
            "{out}"
        );
    }
    Ok(())
}

fn clocks_and_random(test: &Test<'_>) -> Result<()> {
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let ended = test.run(&image).args(&["clocks"]).ctr()?;
        let out = ended.out();
        ensure!(
            ended.code == 0 && out.contains("monotonic advances"),
            "{ended:?}"
        );
        let wall: u64 = out
            .lines()
            .find_map(|line| line.strip_prefix("wall ")?.parse().ok())
            .context("no wall clock")?;
        let after = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        ensure!(
            (before..=after).contains(&wall),
            "{wall} is not in {before}..={after}"
        );

        let first = test.run(&image).args(&["random", "16"]).ctr()?;
        let second = test.run(&image).args(&["random", "16"]).ctr()?;
        ensure!(first.code == 0 && first.stdout.len() == 33, "{first:?}");
        ensure!(first.stdout != second.stdout, "twice {}", first.out());
    }
    Ok(())
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

fn no_privileges(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["spin"]).start()?;
    running.stdout.until("spinning", PATIENCE)?;
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        ensure!(field(set) == Some("0000000000000000"), "{set} in {status}");
    }
    ensure!(field("NoNewPrivs") == Some("1"), "NoNewPrivs in {status}");
    running.end_by(Signal::SIGKILL).map(drop)
}

fn under_seccomp(test: &Test<'_>) -> Result<()> {
    // containerd's own default profile must let a guest do all that it does.
    for (guest, args, text) in [
        ("tour", &["clocks"][..], "monotonic advances\n"),
        ("command-03", &["args", "x"], "x\n"),
    ] {
        let image = test.image(guest)?;
        let ended = test.run(&image).flags(&["--seccomp"]).args(args).ctr()?;
        ensure!(
            ended.code == 0 && ended.out().ends_with(text),
            "{guest}: {ended:?}"
        );
    }
    let image = test.image("tour")?;
    let running = test
        .run(&image)
        .flags(&["--seccomp"])
        .args(&["spin"])
        .start()?;
    running.stdout.until("spinning", PATIENCE)?;
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid))?;
    ensure!(
        status.lines().any(|line| line == "Seccomp:\t2"),
        "no filter: {status}"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn user_and_group(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["spin"]).create_with(|spec| {
        spec["process"]["user"] = serde_json::json!({ "uid": 1234, "gid": 4321 });
    })?;
    let running = Running::start(test, &id)?;
    running.stdout.until("spinning", PATIENCE)?;
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid))?;
    for line in [
        "Uid:\t1234\t1234\t1234\t1234",
        "Gid:\t4321\t4321\t4321\t4321",
    ] {
        ensure!(
            status.lines().any(|found| found == line),
            "no {line:?} in {status}"
        );
    }
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", running.pid))?;
    let expected = format!("/{}/{id}", test.namespace());
    ensure!(
        groups
            .lines()
            .any(|line| line.contains(":memory:") && line.ends_with(&expected))
            || groups.lines().any(|line| line == format!("0::{expected}")),
        "not in {expected}: {groups}"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn compiled_once(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let cache = test.dir().join("cache");
    let config = format!("[cache]\ndir = {cache:?}\n");
    let ended = test.run(&image).config(&config)?.ctr()?;
    ensure!(ended.code == 0, "{ended:?}");
    let kept = fs::read_dir(&cache)?.count();
    ensure!(kept == 1, "{kept} files in the cache");
    // Without a compiler only what is kept can run.
    let config = format!("{config}[compiler]\npath = \"/nonexistent/wisp\"\n");
    let ended = test.run(&image).config(&config)?.ctr()?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(ended.out() == "hello from a component\n", "{ended:?}");
    Ok(())
}
