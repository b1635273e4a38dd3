//! The memory that guests get of their container's.

use super::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs::File;
use std::io::Write;
use wisp_tests::api::Exec;
use wisp_tests::events::Events;
use wisp_tests::fifo::{self, Reader};
use wisp_tests::run::{Run, Running};
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Test, api, http};

const MIB: u64 = 1 << 20;

pub fn cases() -> Vec<Case> {
    super::cases(
        "memory",
        &[
            (
                "a guest at its limit is refused more, and nothing is killed",
                refused,
            ),
            ("a guest that dies of its limit says so", dies),
            (
                "an annotation lowers the limit and cannot raise it",
                annotated,
            ),
            ("an amount that is none fails Create", malformed),
            ("a raised limit reaches a guest that runs", raised),
            ("a lowered limit reaches a guest that runs", lowered),
            (
                "what an instance of a server had is there for the next",
                given_back,
            ),
            (
                "a request for which there is no memory is told to come again",
                no_room,
            ),
            (
                "stacks of a server's instances are in its memory, and nothing is killed",
                stacks,
            ),
            (
                "the guests of a container share its memory, and nothing is killed",
                together,
            ),
            (
                "what a killed guest had is there for the container's others",
                killed,
            ),
        ],
    )
}

fn limited<'t, 'n>(test: &'t Test<'n>, image: &str, limit: u64) -> Run<'t, 'n> {
    test.run(image)
        .flags(&["--memory-limit", &limit.to_string()])
}

fn refused(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        for limit in [16 * MIB, 32 * MIB, 128 * MIB] {
            let events = Events::subscribe(test.node, test.namespace())?;
            let running = limited(test, &image, limit)
                .args(&["hog", "1000"])
                .start()?;
            let id = running.id.clone();
            let ended = running.finish()?;
            let told = ended.err();
            ensure!(ended.code == 1, "{guest}: {ended:?}");
            ensure!(told.starts_with("tour hog: no more memory after"), "{told}");
            let expected = format!("the container's memory limit of {} MiB", limit / MIB);
            ensure!(told.contains(&expected), "{told}");
            let seen = events.until_deleted(&id)?;
            ensure!(
                seen.iter().all(|event| event.topic != "/tasks/oom"),
                "{seen:#?}"
            );
        }
        // Without a limit there is none.
        super::works(test.run(&image).args(&["hog", "200"]))?;
    }
    Ok(())
}

fn dies(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let run = limited(test, &image, 64 * MIB);
    let ended = run.args(&["trap", "memory"]).ctr()?;
    ensure!(ended.code == 134, "{ended:?}");
    let told = ended.err();
    ensure!(told.contains("the memory limit was reached"), "{told}");
    ensure!(
        told.contains("the container's memory limit of 64 MiB"),
        "{told}"
    );
    ensure!(told.contains("a higher limit"), "{told}");
    Ok(())
}

fn annotated(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let hog = |value: &str| {
        let run = limited(test, &image, 64 * MIB).annotation("io.wisp.memory.max", value);
        super::fails(run.args(&["hog", "1000"]))
    };
    let told = hog("16Mi")?;
    ensure!(told.contains("annotation io.wisp.memory.max"), "{told}");
    let told = hog("4Gi")?;
    ensure!(told.contains("memory limit of 64 MiB"), "{told}");
    Ok(())
}

fn malformed(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    for key in ["io.wisp.memory.max", "io.wisp.memory.instance-max"] {
        let ended = test.run(&image).annotation(key, "much").ctr()?;
        let told = ended.err();
        ensure!(ended.code != 0, "{ended:?}");
        ensure!(told.contains(key) && told.contains("much"), "{told}");
    }
    Ok(())
}

/// A guest that takes memory as it is told.
struct Growing<'t, 'n> {
    running: Running<'t, 'n>,
    stdin: File,
}

impl<'t, 'n> Growing<'t, 'n> {
    fn start(test: &'t Test<'n>, limit: u64) -> Result<Self> {
        let image = test.image("tour")?;
        let id = limited(test, &image, limit).args(&["grow"]).create()?;
        let path = test.dir().join(format!("{id}-stdin"));
        let stdin = fifo::writer(&path)?;
        let running = Running::start_with_stdin(test, &id, path.display().to_string())?;
        running.stdout.until("ready", PATIENCE)?;
        Ok(Self { running, stdin })
    }

    fn take(&mut self, mebibytes: u64, answer: &str) -> Result<()> {
        writeln!(self.stdin, "{mebibytes}")?;
        self.running.stdout.until(answer, PATIENCE)
    }
}

fn raised(test: &Test<'_>) -> Result<()> {
    let mut growing = Growing::start(test, 64 * MIB)?;
    growing.take(30, "holding 30 MiB")?;
    growing.take(500, "no more memory after")?;
    let id = growing.running.id.clone();
    test.api()?
        .update(&id, &json!({ "memory": { "limit": 512 * MIB } }))?;
    growing.take(1, "holding")?;
    growing.take(200, "holding 2")?;
    growing.take(500, "no more memory after 4")?;
    let ended = growing.running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 143, "{ended:?}");
    Ok(())
}

fn lowered(test: &Test<'_>) -> Result<()> {
    let mut growing = Growing::start(test, 512 * MIB)?;
    growing.take(20, "holding 20 MiB")?;
    let id = growing.running.id.clone();
    test.api()?
        .update(&id, &json!({ "memory": { "limit": 64 * MIB } }))?;
    growing.take(500, "no more memory after 5")?;
    let ended = growing.running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 143, "{ended:?}");
    Ok(())
}

fn given_back(test: &Test<'_>) -> Result<()> {
    for guest in ["http-02", "http-03"] {
        let image = test.image(guest)?;
        let port = http::free_port()?;
        // Each instance begins with more than a MiB.
        let running = limited(test, &image, 32 * MIB)
            .net_host()
            .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
            .start()?;
        for _ in 0..60 {
            let response = http::get(port, "/")?;
            ensure!(response.status == 200, "{guest}: {}", response.status);
        }
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.code == 0, "{guest}: {ended:?}");
        ensure!(ended.err().is_empty(), "{guest}: {}", ended.err());
    }
    Ok(())
}

fn no_room(test: &Test<'_>) -> Result<()> {
    for (guest, key, status) in [
        ("http-02", "io.wisp.memory.max", 503),
        ("http-03", "io.wisp.memory.max", 503),
        // More of this is never there.
        ("http-02", "io.wisp.memory.instance-max", 500),
    ] {
        let image = test.image(guest)?;
        let port = http::free_port()?;
        // Each instance begins with more.
        let running = test
            .run(&image)
            .net_host()
            .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
            .annotation(key, "128Ki")
            .start()?;
        for _ in 0..2 {
            let response = http::get(port, "/")?;
            ensure!(response.status == status, "{guest}: {}", response.status);
        }
        let told = running.end_by(Signal::SIGTERM)?.err();
        ensure!(told.contains(key), "{told}");
    }
    Ok(())
}

/// How many calls a guest's stack has room for: the most of these that did not trap.
fn deepest(port: u16) -> Result<u64> {
    let mut levels = 1000;
    while http::get(port, &format!("/deep?levels={}&ms=0", levels * 5 / 4))?.status == 200 {
        levels = levels * 5 / 4;
        ensure!(levels < 1_000_000, "{levels} calls deep");
    }
    Ok(levels)
}

fn stacks(test: &Test<'_>) -> Result<()> {
    for guest in ["http-02", "http-03"] {
        let image = test.image(guest)?;
        let port = http::free_port()?;
        let events = Events::subscribe(test.node, test.namespace())?;
        let running = limited(test, &image, 32 * MIB)
            .net_host()
            .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
            .start()?;
        let path = format!("/deep?levels={}&ms=2000", deepest(port)?);
        for _ in 0..2 {
            let open: Result<Vec<_>> = (0..60)
                .map(|_| http::request(port, "GET", &path, b""))
                .collect();
            let statuses: Result<Vec<_>> = open?
                .into_iter()
                .map(|stream| http::finish(stream).map(|response| response.status))
                .collect();
            let statuses = statuses?;
            let count = |status| statuses.iter().filter(|is| **is == status).count();
            // Each has more than a MiB, and its stack: of 26 MiB more than 10 have
            // what they need, and 20 do not.
            let (served, refused) = (count(200), count(503));
            ensure!((11..20).contains(&served), "{guest}: {statuses:?}");
            ensure!(served + refused == 60, "{guest}: {statuses:?}");
        }
        ensure!(http::get(port, "/")?.status == 200);
        let id = running.id.clone();
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.code == 0, "{guest}: {ended:?}");
        let told = ended.err();
        ensure!(told.contains("KiB of which instances' stacks"), "{told}");
        ensure!(told.contains("memory limit of 32 MiB"), "{told}");
        let seen = events.until_deleted(&id)?;
        ensure!(
            seen.iter().all(|event| event.topic != "/tasks/oom"),
            "{guest}: {seen:#?}"
        );
    }
    Ok(())
}

/// A further guest of `id`, which has its stderr read.
fn further<'c>(
    test: &'c Test<'_>,
    id: &str,
    args: &[&str],
    stdin: String,
) -> Result<(Exec<'c>, Reader, Reader)> {
    let place = |name: &str| test.dir().join(format!("further-{name}"));
    let (stdout, stderr) = (
        Reader::new(&place("stdout"))?,
        Reader::new(&place("stderr"))?,
    );
    let exec = test.api()?.process(id, "further");
    let streams = api::Streams {
        stdin,
        stdout: stdout.path(),
        stderr: stderr.path(),
        terminal: false,
    };
    exec.add(&[&["/tour.wasm"], args].concat(), &streams)?;
    exec.start()?;
    Ok((exec, stdout, stderr))
}

fn together(test: &Test<'_>) -> Result<()> {
    let events = Events::subscribe(test.node, test.namespace())?;
    let mut growing = Growing::start(test, 64 * MIB)?;
    growing.take(40, "holding 40 MiB")?;
    let id = growing.running.id.clone();
    let (exec, _, stderr) = further(test, &id, &["hog", "50"], String::new())?;
    let code = exec.wait()?;
    exec.delete()?;
    let told = String::from_utf8(stderr.to_end(PATIENCE)?)?;
    ensure!(code == 1, "exec exited {code}: {told}");
    ensure!(told.starts_with("tour hog: no more memory after"), "{told}");
    ensure!(told.contains("of which other guests"), "{told}");
    // It left nothing behind, and took nothing from the first.
    growing.take(10, "holding 50 MiB")?;
    let ended = growing.running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 143, "{ended:?}");
    let seen = events.until_deleted(&id)?;
    ensure!(
        seen.iter().all(|event| event.topic != "/tasks/oom"),
        "{seen:#?}"
    );
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    let events = Events::subscribe(test.node, test.namespace())?;
    let mut growing = Growing::start(test, 64 * MIB)?;
    let id = growing.running.id.clone();
    let path = test.dir().join("further-stdin");
    let mut stdin = fifo::writer(&path)?;
    let (exec, stdout, _stderr) = further(test, &id, &["grow"], path.display().to_string())?;
    writeln!(stdin, "40")?;
    stdout.until("holding 40 MiB", PATIENCE)?;
    growing.take(30, "no more memory after 1")?;
    exec.kill(Signal::SIGKILL as i32)?;
    let code = exec.wait()?;
    ensure!(code == 137, "exec exited {code}");
    exec.delete()?;
    growing.take(30, "holding 4")?;
    let ended = growing.running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 143, "{ended:?}");
    let seen = events.until_deleted(&id)?;
    ensure!(
        seen.iter().all(|event| event.topic != "/tasks/oom"),
        "{seen:#?}"
    );
    Ok(())
}
