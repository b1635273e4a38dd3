//! Exec, as probes, hooks and `kubectl exec` do it.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use wisp_tests::cri::Test;
use wisp_tests::cri::stream::Session;
use wisp_tests::{http, oci, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "exec",
        &[
            ("a probe runs a native program", native),
            ("a probe runs a Wasm program beside a server", guest),
            (
                "an executed guest has the container's files, env and user",
                surroundings,
            ),
            ("what cannot be executed is 127 and a sentence", not_there),
            ("a probe that takes too long is ended", too_long),
            ("probes run many times, and at once", many),
            ("a streamed exec talks with a guest", streamed_guest),
            (
                "a streamed exec talks with a native program",
                streamed_native,
            ),
            ("a shell at a terminal, with its size", shell),
            ("exec in a container that has ended is refused", ended),
        ],
    )
}

/// An HTTP server whose image has a command, too.
fn furnished(test: &Test<'_>) -> Result<String> {
    let server = fs::read(paths::guest("http-02")?)?;
    let command = fs::read(paths::guest("tour")?)?;
    test.built("http-and-tour", |reference, output| {
        oci::Image::new(&["/http-02.wasm"])
            .files(&[
                oci::Entry::Dir("bin"),
                oci::Entry::File("http-02.wasm", 0o755, &server),
                oci::Entry::File("bin/tour.wasm", 0o755, &command),
            ])?
            .write(reference, false, output)
    })
}

fn native(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("probed").run()?;
    let container = pod
        .container("app", &test.busybox()?)
        .env("NAME", "value")
        .args(&["sleep", "600"])
        .start()?;
    let answer = container.exec(&["sh", "-c", "echo out $NAME; echo err >&2; exit 5"])?;
    ensure!(
        answer == (5, "out value\n".to_owned(), "err\n".to_owned()),
        "{answer:?}"
    );
    let answer = container.exec(&["true"])?;
    ensure!(answer.0 == 0, "{answer:?}");
    container.stop(0)
}

fn guest(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("probed").run()?;
    let container = pod.container("app", &furnished(test)?).start()?;
    let answer = container.exec(&["/bin/tour.wasm", "args", "one", "two words"])?;
    ensure!(
        answer == (0, "one\ntwo words\n".to_owned(), String::new()),
        "{answer:?}"
    );
    let answer = container.exec(&["/bin/tour.wasm", "exit", "3"])?;
    ensure!(answer.0 == 3, "{answer:?}");
    let answer = container.exec(&["/bin/tour.wasm", "trap"])?;
    ensure!(
        answer.0 == 134 && answer.2.contains("unreachable"),
        "{answer:?}"
    );
    // The server has not noticed.
    let address = format!("{}:8080", pod.address()?).parse()?;
    ensure!(http::get_from(address, "/")?.status == 200, "no answer");
    container.stop(10)
}

fn surroundings(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("probed").run()?;
    let volume = test.volume("data")?;
    nix::unistd::chown(&volume, Some(1234.into()), None)?;
    let container = pod
        .container("app", &furnished(test)?)
        .env("NAME", "value")
        .volume(&volume, "/data")
        .user(1234, 1234)
        .start()?;
    let answer = container.exec(&["/bin/tour.wasm", "env", "NAME"])?;
    ensure!(answer.1 == "value\n", "{answer:?}");
    let answer = container.exec(&["/bin/tour.wasm", "write", "/data/note", "text"])?;
    ensure!(answer.0 == 0, "{answer:?}");
    let written = fs::metadata(volume.join("note"))?;
    let owner = std::os::unix::fs::MetadataExt::uid(&written);
    ensure!(owner == 1234, "{owner}");
    let answer = container.exec(&["/bin/tour.wasm", "write", "/note", "text"])?;
    ensure!(answer.0 == 1, "the root was written: {answer:?}");
    container.stop(10)
}

fn not_there(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("probed").run()?;
    let container = pod.container("app", &furnished(test)?).start()?;
    let (code, _, said) = container.exec(&["sh", "-c", "true"])?;
    ensure!(code == 127, "{code}: {said}");
    ensure!(said.contains("sh"), "{said}");
    container.stop(10)
}

fn too_long(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("probed").run()?;
    for (name, image, command) in [
        (
            "guest",
            furnished(test)?,
            ["/bin/tour.wasm", "sleep", "600000"],
        ),
        ("native", test.busybox()?, ["sh", "-c", "sleep 600"]),
    ] {
        let args: &[&str] = if name == "guest" {
            &[]
        } else {
            &["sleep", "600"]
        };
        let container = pod.container(name, &image).args(args).start()?;
        let error = container.exec_within(&command, 1).err();
        let error = format!("{:#}", error.with_context(|| format!("{name}: it ended"))?);
        ensure!(
            error.contains("DeadlineExceeded") && error.contains("timeout"),
            "{name}: {error}"
        );
        // The container lives on.
        let pid = container.pid()?;
        ensure!(pid > 0, "{name}: it ended");
        container.stop(10)?;
    }
    Ok(())
}

fn many(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("probed").run()?;
    let container = pod.container("app", &furnished(test)?).start()?;
    for _ in 0..10 {
        let answer = container.exec(&["/bin/tour.wasm", "args", "x"])?;
        ensure!(answer.1 == "x\n", "{answer:?}");
    }
    let urls = (0..5)
        .map(|_| container.exec_url(&["/bin/tour.wasm", "args", "y"], false))
        .collect::<Result<Vec<_>>>()?;
    let threads: Vec<_> = urls
        .into_iter()
        .map(|url| {
            std::thread::spawn(move || -> Result<(i32, Vec<u8>)> {
                let mut session = Session::open(&url)?;
                Ok((session.finish()?, session.stdout))
            })
        })
        .collect();
    for thread in threads {
        let answer = thread.join().ok().context("a thread panicked")??;
        ensure!(answer == (0, b"y\n".to_vec()), "{answer:?}");
    }
    container.stop(10)
}

fn streamed_guest(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("talked-to").run()?;
    let container = pod.container("app", &furnished(test)?).start()?;
    let url = container.exec_url(&["/bin/tour.wasm", "cat"], true)?;
    let mut session = Session::open(&url)?;
    session.write("hello\n")?;
    session.until("hello\r\nhello\r\n")?;
    session.write("\u{4}")?;
    let code = session.finish()?;
    ensure!(code == 0, "{code}: {session:?}");
    let url = container.exec_url(&["/bin/tour.wasm", "exit", "9"], false)?;
    let code = Session::open(&url)?.finish()?;
    ensure!(code == 9, "{code}");
    container.stop(10)
}

fn streamed_native(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("talked-to").run()?;
    let container = pod
        .container("app", &test.busybox()?)
        .args(&["sleep", "600"])
        .start()?;
    let script = "read line; echo got $line; echo err >&2; exit 4";
    let mut session = Session::open(&container.exec_url(&["sh", "-c", script], false)?)?;
    session.write("hello\n")?;
    let code = session.finish()?;
    ensure!(code == 4, "{code}: {session:?}");
    ensure!(
        session.stdout == b"got hello\n" && session.stderr == b"err\n",
        "{session:?}"
    );
    container.stop(0)
}

fn shell(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("shell").run()?;
    let container = pod
        .container("app", &test.busybox()?)
        .args(&["sleep", "600"])
        .start()?;
    let mut session = Session::open(&container.exec_url(&["sh"], true)?)?;
    session.write("tty\n")?;
    session.until("/dev/pts/")?;
    session.resize(132, 43)?;
    // The size goes another way than what is typed.
    session.write("until stty size | grep '43 132'; do sleep 0.05; done; exit 6\n")?;
    let code = session.finish()?;
    ensure!(code == 6, "{code}: {session:?}");
    container.stop(0)
}

fn ended(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("over").run()?;
    let container = pod.container("app", &test.image("hello")?).start()?;
    container.wait()?;
    let error = container.exec(&["/hello.wasm"]).err().context("it ran")?;
    ensure!(format!("{error:#}").contains("state"), "{error:#}");
    Ok(())
}
