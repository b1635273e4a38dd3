//! Further guests in a Wasm container.

use super::super::Body;
use super::{Added, execute, mixed, namespaces, process, sleeping};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::Write;
use wisp_tests::fifo::{self};
use wisp_tests::oci::{Entry, Image};
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Test, paths};

pub fn cases() -> [(&'static str, Body); 8] {
    [
        (
            "a further guest has its own arguments, environment and code",
            guest,
        ),
        (
            "a further guest reads its own stdin to its end",
            guest_stdin,
        ),
        (
            "a further guest is in the container's namespaces and cgroup",
            joined,
        ),
        ("a further guest may do what the container may", granted),
        (
            "a further guest has the settings of its container, whatever they are by then",
            settings,
        ),
        (
            "a further guest may be another file, also of a volume",
            other_file,
        ),
        ("a layer is executed by its title and no other name", layer),
        ("what is not there exits 127 and says what is", missing),
    ]
}

fn guest(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let id = running.id.clone();
    let ended = execute(
        test,
        &id,
        "args",
        &process(&["/tour.wasm", "args", "one", "two"]),
    )?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(
        ended.out().contains("one") && ended.out().contains("two"),
        "{ended:?}"
    );
    let ended = execute(test, &id, "env", &process(&["/tour.wasm", "env"]))?;
    ensure!(ended.out().contains("ONLY=exec"), "{ended:?}");
    let mut elsewhere = process(&["/tour.wasm", "exit", "42"]);
    elsewhere["cwd"] = "/".into();
    ensure!(execute(test, &id, "code", &elsewhere)?.code == 42);
    let ended = execute(test, &id, "trap", &process(&["/tour.wasm", "trap"]))?;
    ensure!(
        ended.code == 134 && ended.err().contains("wasm"),
        "{ended:?}"
    );
    // The same exec id may be used again once it is deleted.
    ensure!(execute(test, &id, "code", &elsewhere)?.code == 42);
    ensure!(running.end_by(Signal::SIGTERM)?.code == 143, "not 143");
    Ok(())
}

fn guest_stdin(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let input: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let path = test.dir().join("typed");
    let mut stdin = fifo::writer(&path)?;
    let spec = process(&["/tour.wasm", "cat"]);
    let stdin_path = path.display().to_string();
    let added = Added::with_stdin(test, &running.id, "cat", &spec, stdin_path)?;
    added.exec.start()?;
    stdin.write_all(&input)?;
    drop(stdin);
    added.exec.close_stdin()?;
    let ended = added.finish()?;
    ensure!(
        ended.code == 0 && ended.stdout == input,
        "exited {}",
        ended.code
    );
    running.end_by(Signal::SIGKILL).map(drop)
}

fn joined(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let added = Added::new(
        test,
        &running.id,
        "sleeper",
        &process(&["/tour.wasm", "sleep", "1000000"]),
    )?;
    let pid = added.exec.start()?;
    added.stdout.until("sleeping", PATIENCE)?;
    let first = namespaces(running.pid)?;
    ensure!(
        namespaces(pid)? == first,
        "{:?} are not {first:?}",
        namespaces(pid)?
    );
    let cgroups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    ensure!(cgroups(pid)? == cgroups(running.pid)?, "{}", cgroups(pid)?);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        ensure!(status.contains(line), "no {line} in {status}");
    }
    let root = |pid: u32| fs::metadata(format!("/proc/{pid}/root/rootfs/tour.wasm"));
    ensure!(root(pid).is_ok(), "it is not in the jail");
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| !link.to_string_lossy().starts_with("anon_inode"))
        .map(|link| link.display().to_string())
        .collect::<Vec<_>>();
    let foreign = |link: &&String| link.contains("pidfd") || link.contains("/proc");
    ensure!(!open.iter().any(|link| foreign(&link)), "{open:?}");
    added.exec.kill(Signal::SIGTERM as i32)?;
    ensure!(added.finish()?.code == 143, "not 143");
    running.end_by(Signal::SIGTERM).map(drop)
}

fn granted(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    for (access, code) in [("ro", 1), ("rw", 0)] {
        let running = test
            .run(&image)
            .annotation("io.wisp.fs.root", access)
            .args(&["sleep", "1000000"])
            .start()?;
        running.stdout.until("sleeping", PATIENCE)?;
        let write = process(&["/tour.wasm", "write", "/new", "text"]);
        let ended = execute(test, &running.id, "write", &write)?;
        ensure!(ended.code == code, "{access}: {ended:?}");
        // The environment is the exec's, and grants nothing.
        let mut connect = process(&["/tour.wasm", "tcp-connect", "127.0.0.1:1"]);
        connect["env"] = json!(["io.wisp.net.outbound=*"]);
        let ended = execute(test, &running.id, "connect", &connect)?;
        ensure!(ended.code == 1, "{access}: {ended:?}");
        running.end_by(Signal::SIGTERM)?;
    }
    Ok(())
}

fn settings(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let dir = test.dir().display();
    let text = format!("[cache]\ndir = \"{dir}/aot\"\nrun_dir = \"{dir}/aot-run\"\n");
    let strict = format!("{text}[policy]\nprofile = \"strict\"\n");
    let lists = process(&["/tour.wasm", "list", "/"]);
    for (before, after, code) in [
        // Neither is it denied what the container may, nor given more.
        (&text, &strict, 0),
        (&strict, &text, 1),
        (&text, &"[policy".to_owned(), 0),
    ] {
        let run = test.run(&image).config(before)?;
        let running = run.args(&["sleep", "1000000"]).start()?;
        running.stdout.until("sleeping", PATIENCE)?;
        fs::write(test.dir().join("config.toml"), after)?;
        let ended = execute(test, &running.id, "list", &lists)?;
        ensure!(ended.code == code, "{before} {after}: {ended:?}");
        running.end_by(Signal::SIGKILL)?;
    }
    Ok(())
}

fn other_file(test: &Test<'_>) -> Result<()> {
    let volume = test.dir().join("volume");
    fs::create_dir(&volume)?;
    fs::copy(paths::guest("hello-module")?, volume.join("probe.wasm"))?;
    let mount = format!(
        "type=bind,src={},dst=/volume,options=rbind:ro",
        volume.display()
    );
    let image = mixed(test)?;
    let running = test
        .run(&image)
        .flags(&["--mount", &mount])
        .args(&["sleep", "1000000"])
        .start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    for name in ["hello.wasm", "/bin/hello.wasm", "/volume/probe.wasm"] {
        let ended = execute(test, &running.id, "other", &process(&[name]))?;
        ensure!(
            ended.code == 0 && ended.out().contains("hello"),
            "{name}: {ended:?}"
        );
    }
    running.end_by(Signal::SIGTERM).map(drop)
}

fn layer(test: &Test<'_>) -> Result<()> {
    if !test.node.version().unpacks_wasm_layers() {
        return Ok(());
    }
    let reference = test.built("exec-layers", |reference, output| {
        let tour = fs::read(paths::guest("tour")?)?;
        let hello = fs::read(paths::guest("hello")?)?;
        Image::new(&["tour.wasm"])
            .files(&[Entry::Dir("data")])?
            .wasm("application/wasm", Some("tour.wasm"), tour)
            .wasm("application/wasm", Some("hello.wasm"), hello)
            .write(reference, false, output)
    })?;
    test.starts(&reference, "tour.wasm");
    let running = test.run(&reference).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let ended = execute(test, &running.id, "layer", &process(&["hello.wasm"]))?;
    ensure!(
        ended.code == 0 && ended.out().contains("hello"),
        "{ended:?}"
    );
    let ended = execute(
        test,
        &running.id,
        "own",
        &process(&["tour.wasm", "exit", "3"]),
    )?;
    ensure!(ended.code == 3, "{ended:?}");
    let ended = execute(test, &running.id, "none", &process(&["sh"]))?;
    ensure!(ended.code == 127, "{ended:?}");
    ensure!(ended.err().contains("hello.wasm"), "{ended:?}");
    running.end_by(Signal::SIGTERM).map(drop)
}

fn missing(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let ended = execute(test, &running.id, "sh", &process(&["sh", "-c", "true"]))?;
    ensure!(ended.code == 127 && ended.stdout.is_empty(), "{ended:?}");
    for part in ["\"sh\"", "/bin/sh", "WebAssembly", "/tour.wasm"] {
        ensure!(ended.err().contains(part), "no {part} in {}", ended.err());
    }
    ensure!(ended.err().lines().count() == 1, "{}", ended.err());
    running.end_by(Signal::SIGTERM).map(drop)
}
