//! HTTP components as servers.

use super::Case;
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::Signal;
use std::fs;
use std::net::{TcpListener, TcpStream};
use wisp_tests::api::Streams;
use wisp_tests::http::{self, Response};
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Run, Running, Test, paths};

const GUESTS: [&str; 2] = ["http-02", "http-03"];

pub fn cases() -> Vec<Case> {
    super::cases(
        "http",
        &[
            (
                "a 0.2 component answers as soon as it is started",
                answers_02,
            ),
            (
                "a 0.3 component answers as soon as it is started",
                answers_03,
            ),
            ("a body comes back as it was sent", echo),
            ("a streamed body arrives whole", streamed),
            (
                "arguments, environment and files are there as for commands",
                surroundings,
            ),
            ("what a handler prints is the container's output", prints),
            ("a handler that traps is one failed request", traps),
            ("many requests at once are all answered", many),
            ("SIGTERM lets a request finish and then exits 0", drains),
            ("SIGTERM ends an idle server with 0", idle),
            ("SIGKILL ends a server with 137", killed),
            (
                "a port in use makes start fail with that reason",
                port_in_use,
            ),
            ("a start that failed leaves a stopped task", failed_start),
            (
                "the environment may choose the address, and the annotation wins",
                addresses,
            ),
            (
                "without a choice it listens on port 8080 of its own network",
                default_address,
            ),
        ],
    )
}

/// A server of the guest on the host's network, and its port.
fn serve<'t, 'n>(
    test: &'t Test<'n>,
    guest: &str,
    describe: impl FnOnce(Run<'t, 'n>) -> Run<'t, 'n>,
) -> Result<(Running<'t, 'n>, u16)> {
    let image = test.image(guest)?;
    let port = http::free_port()?;
    let run = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"));
    Ok((describe(run).start()?, port))
}

fn stop(running: Running<'_, '_>) -> Result<()> {
    let ended = running.end_by(Signal::SIGTERM)?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

fn is(response: &Response, status: u16, text: &str) -> Result<()> {
    ensure!(
        response.status == status && response.text() == text,
        "expected {status} {text:?}, got {} {:?}",
        response.status,
        response.text()
    );
    Ok(())
}

fn answers(test: &Test<'_>, guest: &str, expected: &str) -> Result<()> {
    let (running, port) = serve(test, guest, |run| run)?;
    // No waiting: Start returns when the port listens.
    is(&http::get(port, "/")?, 200, expected)?;
    is(&http::get(port, "/no-such-path")?, 404, "nothing here\n")?;
    is(&http::post(port, "/method", b"")?, 200, "POST\n")?;
    stop(running)
}

fn answers_02(test: &Test<'_>) -> Result<()> {
    answers(test, "http-02", "hello from wasi:http 0.2\n")
}

fn answers_03(test: &Test<'_>) -> Result<()> {
    answers(test, "http-03", "hello from wasi:http 0.3\n")
}

fn echo(test: &Test<'_>) -> Result<()> {
    let body: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    for guest in GUESTS {
        let (running, port) = serve(test, guest, |run| run)?;
        for body in [&body[..], b"", b"x"] {
            let response = http::post(port, "/echo", body)?;
            ensure!(response.status == 200, "{guest}: {}", response.status);
            ensure!(
                response.body == body,
                "{guest}: {} bytes of {} came back",
                response.body.len(),
                body.len()
            );
        }
        stop(running)?;
    }
    Ok(())
}

fn streamed(test: &Test<'_>) -> Result<()> {
    let expected: String = (0..5000).map(|n| format!("line {n}\n")).collect();
    for guest in GUESTS {
        let (running, port) = serve(test, guest, |run| run)?;
        is(&http::get(port, "/stream?n=5000")?, 200, &expected)?;
        stop(running)?;
    }
    Ok(())
}

fn surroundings(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let text = test.file("note", "a note in the image\n")?;
        let image = test.packed(
            &format!("{guest}-note"),
            &paths::guest(guest)?,
            &["--add", &format!("{}:/etc/note", text.display())],
        )?;
        let port = http::free_port()?;
        let running = test
            .run(&image)
            .net_host()
            .annotation("io.wisp.http.listen", &format!("127.0.0.1:{port}"))
            .env("GREETING", "hello")
            .args(&["one", "two"])
            .start()?;
        is(
            &http::get(port, "/file?path=/etc/note")?,
            200,
            "a note in the image\n",
        )?;
        let environment = http::get(port, "/env")?.text();
        ensure!(
            environment.lines().any(|line| line == "GREETING=hello"),
            "{environment}"
        );
        let arguments = http::get(port, "/args")?.text();
        ensure!(arguments.ends_with("one\ntwo\n"), "{arguments}");
        stop(running)?;
    }
    Ok(())
}

fn prints(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, |run| run)?;
        is(&http::get(port, "/log")?, 200, "logged\n")?;
        running.stdout.until("stdout of a request\n", PATIENCE)?;
        running.stderr.until("stderr of a request\n", PATIENCE)?;
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.out() == "stdout of a request\n", "{ended:?}");
    }
    Ok(())
}

fn traps(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, |run| run)?;
        let response = http::get(port, "/trap")?;
        ensure!(response.status == 500, "{guest}: {}", response.status);
        running.stderr.until("trap_here", PATIENCE)?;
        ensure!(
            http::get(port, "/")?.status == 200,
            "{guest}: the server went with it"
        );
        stop(running)?;
    }
    Ok(())
}

fn many(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, |run| run)?;
        let threads: Vec<_> = (0..32)
            .map(|_| std::thread::spawn(move || http::get(port, "/sleep?ms=200")))
            .collect();
        for thread in threads {
            let response = thread.join().ok().context("a thread panicked")??;
            is(&response, 200, "awake\n")?;
        }
        stop(running)?;
    }
    Ok(())
}

fn drains(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, port) = serve(test, guest, |run| run)?;
        let stream = http::request(port, "GET", "/sleep?ms=3000", b"")?;
        // A second request that is answered shows that the first was accepted.
        is(&http::get(port, "/sleep?ms=1")?, 200, "awake\n")?;
        running.kill(Signal::SIGTERM)?;
        let closed = wait::until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).err());
        closed.context("it still accepts connections")?;
        is(&http::finish(stream)?, 200, "awake\n").context("the request in flight")?;
        let ended = running.finish()?;
        ensure!(ended.code == 0, "{guest}: {ended:?}");
    }
    Ok(())
}

fn idle(test: &Test<'_>) -> Result<()> {
    for guest in GUESTS {
        let (running, _) = serve(test, guest, |run| run)?;
        stop(running)?;
        // An open connection without a request does not keep it.
        let (running, port) = serve(test, guest, |run| run)?;
        let _open = TcpStream::connect(("127.0.0.1", port))?;
        stop(running)?;
    }
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    let (running, port) = serve(test, "http-02", |run| run)?;
    let _spinning = http::request(port, "GET", "/spin", b"")?;
    let ended = running.end_by(Signal::SIGKILL)?;
    ensure!(ended.code == 137, "{ended:?}");
    Ok(())
}

fn port_in_use(test: &Test<'_>) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    for guest in GUESTS {
        let image = test.image(guest)?;
        let ended = test
            .run(&image)
            .net_host()
            .annotation("io.wisp.http.listen", &address)
            .ctr()?;
        let err = ended.err();
        ensure!(ended.code != 0, "{guest}: it ran: {ended:?}");
        ensure!(err.starts_with("ctr: "), "not ctr's own message: {err}");
        ensure!(
            err.contains(&address) && err.contains("in use"),
            "{guest}: {err}"
        );
    }
    Ok(())
}

fn failed_start(test: &Test<'_>) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let image = test.image("http-02")?;
    let id = test
        .run(&image)
        .net_host()
        .annotation("io.wisp.http.listen", &taken.local_addr()?.to_string())
        .create()?;
    let api = test.api()?;
    api.create(&id, &Streams::default())?;
    let error = api.start(&id).err().context("started")?;
    ensure!(format!("{error:#}").contains("in use"), "{error:#}");
    // Clients delete at once, which needs a task that has ended.
    let (status, _, _) = api.state(&id)?;
    ensure!(status == Status::Stopped, "{status:?} after a failed start");
    api.delete(&id)?;
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn addresses(test: &Test<'_>) -> Result<()> {
    let image = test.image("http-02")?;
    let variables = [
        "WISP_HTTP_LISTEN",
        "WASMTIME_HTTP_PROXY_SOCKET_ADDR",
        "SPIN_HTTP_LISTEN_ADDR",
    ];
    for variable in variables {
        let port = http::free_port()?;
        let run = test.run(&image).net_host();
        let running = run.env(variable, &format!("127.0.0.1:{port}")).start()?;
        ensure!(http::get(port, "/")?.status == 200, "{variable}");
        stop(running)?;
    }
    let (chosen, other) = (http::free_port()?, http::free_port()?);
    let running = test
        .run(&image)
        .net_host()
        .env("WISP_HTTP_LISTEN", &format!("127.0.0.1:{other}"))
        .annotation("io.wisp.http.listen", &format!("127.0.0.1:{chosen}"))
        .start()?;
    ensure!(http::get(chosen, "/")?.status == 200, "the annotation");
    ensure!(
        TcpStream::connect(("127.0.0.1", other)).is_err(),
        "listens at both"
    );
    stop(running)
}

fn default_address(test: &Test<'_>) -> Result<()> {
    let image = test.image("http-02")?;
    let running = test.run(&image).start()?;
    // The table of the process's own network namespace: 8080 is 1F90, 0A means
    // that it listens.
    let table = fs::read_to_string(format!("/proc/{}/net/tcp", running.pid))?;
    let listening = table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&"00000000:1F90") && fields.get(3) == Some(&"0A")
    });
    ensure!(listening, "{table}");
    stop(running)
}
