//! Attach and PortForward, through containerd's streaming server.

use super::Case;
use anyhow::{Context, Result, ensure};
use wisp_tests::cri::Test;
use wisp_tests::cri::stream::{self, Session};

pub fn cases() -> Vec<Case> {
    super::cases(
        "streams",
        &[
            ("attach talks with a guest, again and again", attach_guest),
            ("attach talks with a native program", attach_native),
            ("attach talks with a guest at a terminal", attach_terminal),
            ("a window's size reaches a native program", resized),
            ("a forwarded port leads to a Wasm server", forwarded_port),
            ("a forwarded port where nobody listens says so", closed_port),
        ],
    )
}

fn attach_guest(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("attached").run()?;
    for guest in ["tour", "tour-module"] {
        let container = pod
            .container(guest, &test.image(guest)?)
            .args(&["cat"])
            .config(|config| config.stdin = true)
            .start()?;
        // Who detaches ends nothing.
        for word in ["one", "two"] {
            let mut session = Session::open(&container.attach_url()?)?;
            session.ask(&format!("{word}\n"), &format!("{word}\n"))?;
        }
        container.says("two")?;
        container.stop(0)?;
    }
    Ok(())
}

fn attach_native(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("attached").run()?;
    let script = "while read word; do [ $word = end ] && exit 3; echo got $word; done";
    let container = pod
        .container("app", &test.busybox()?)
        .args(&["sh", "-c", script])
        .config(|config| config.stdin = true)
        .start()?;
    let mut session = Session::open(&container.attach_url()?)?;
    session.ask("hello\n", "got hello\n")?;
    session.write("end\n")?;
    let status = container.wait()?;
    ensure!(status.exit_code == 3, "{status:?}");
    Ok(())
}

fn attach_terminal(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("terminal").run()?;
    for guest in ["tour", "tour-module"] {
        let container = pod
            .container(guest, &test.image(guest)?)
            .args(&["cat"])
            .config(|config| (config.stdin, config.tty) = (true, true))
            .start()?;
        let mut session = Session::open(&container.attach_url()?)?;
        // First the terminal's echo.
        session.ask("hello\n", "hello\r\nhello\r\n")?;
        // Ctrl-D is the end of a terminal's input.
        session.write("\u{4}")?;
        let status = container.wait()?;
        ensure!(status.exit_code == 0, "{guest}: {status:?}");
    }
    Ok(())
}

fn resized(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("terminal").run()?;
    let script = "until stty size | grep '43 132'; do sleep 0.05; done; \
                  while read line; do stty size; done";
    let container = pod
        .container("app", &test.busybox()?)
        .args(&["sh", "-c", script])
        .config(|config| (config.stdin, config.tty) = (true, true))
        .start()?;
    let mut session = Session::open(&container.attach_url()?)?;
    session.resize(132, 43)?;
    session.ask("\n", "43 132\r\n")?;
    container.stop(0)
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";

fn forwarded_port(test: &Test<'_>) -> Result<()> {
    // Only the pod itself reaches its localhost.
    let pod = test
        .pod("forwarded")
        .annotation("io.wisp.http.listen", "127.0.0.1:8080")
        .run()?;
    pod.container("app", &test.image("http-02")?).start()?;
    for _ in 0..2 {
        let answer = stream::forward(&pod.forward_url(8080)?, REQUEST)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("hello from wasi:http 0.2"),
            "{answer}"
        );
    }
    Ok(())
}

fn closed_port(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("closed").run()?;
    let error = stream::forward(&pod.forward_url(81)?, REQUEST)
        .err()
        .context("it was answered")?;
    ensure!(format!("{error:#}").contains("refused"), "{error:#}");
    Ok(())
}
