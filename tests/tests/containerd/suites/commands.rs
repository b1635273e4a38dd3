//! Guests that run to an end, and what they are given.

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
        let mut resolutions = out
            .lines()
            .find_map(|line| line.strip_prefix("resolutions "))
            .context("no resolutions")?
            .split(' ')
            .map(str::parse::<u64>);
        ensure!(
            resolutions.all(|resolution| resolution.is_ok_and(|nanoseconds| nanoseconds > 0)),
            "{out}"
        );

        let first = test.run(&image).args(&["random", "16"]).ctr()?;
        let second = test.run(&image).args(&["random", "16"]).ctr()?;
        ensure!(first.code == 0 && first.stdout.len() == 33, "{first:?}");
        ensure!(first.stdout != second.stdout, "twice {}", first.out());
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
