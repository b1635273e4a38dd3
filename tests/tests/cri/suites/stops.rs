//! `terminationGracePeriodSeconds`: StopContainer.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::net::{SocketAddr, TcpStream};
use wisp_tests::cri::Test;
use wisp_tests::http;
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    super::cases(
        "stops",
        &[
            (
                "a server answers what it has begun, and completes",
                server_drains,
            ),
            ("a guest that computes stops at once", busy_guest),
            (
                "a program that ignores SIGTERM is killed after its grace",
                stubborn,
            ),
            ("no grace is a kill", no_grace),
            ("stopping what has ended is fine", ended),
            ("an image may name another signal", other_signal),
        ],
    )
}

fn server_drains(test: &Test<'_>) -> Result<()> {
    for guest in ["http-02", "http-03"] {
        let pod = test.pod(guest).run()?;
        let container = pod.container("server", &test.image(guest)?).start()?;
        let address: SocketAddr = format!("{}:8080", pod.address()?).parse()?;
        let slow = http::request_to(address, "GET", "/sleep?ms=1500", b"")?;
        // A second request that is answered shows that the first was accepted.
        ensure!(
            http::get_from(address, "/sleep?ms=1")?.text() == "awake\n",
            "{guest}"
        );
        let closed = std::thread::spawn(move || {
            wait::until(PATIENCE, || TcpStream::connect(address).err()).map(drop)
        });
        container.stop(30)?;
        closed
            .join()
            .ok()
            .flatten()
            .context("it still accepts connections")?;
        let response = http::finish(slow).context("the request in flight")?;
        ensure!(response.text() == "awake\n", "{guest}: {response:?}");
        let status = container.status()?;
        ensure!(
            status.exit_code == 0 && status.reason == "Completed",
            "{guest}: {status:?}"
        );
    }
    Ok(())
}

fn busy_guest(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("busy").run()?;
    for guest in ["tour", "tour-module"] {
        let container = pod
            .container(guest, &test.image(guest)?)
            .args(&["spin"])
            .start()?;
        container.says("spinning")?;
        container.stop(600)?;
        let status = container.status()?;
        ensure!(
            status.exit_code == 143 && status.reason == "Error",
            "{guest}: {status:?}"
        );
    }
    Ok(())
}

fn stubborn(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("stubborn").run()?;
    let script = "trap 'echo no' TERM; echo ready; while :; do sleep 0.1; done";
    let container = pod
        .container("app", &test.busybox()?)
        .args(&["sh", "-c", script])
        .start()?;
    container.says("ready")?;
    container.stop(1)?;
    let status = container.status()?;
    ensure!(status.exit_code == 137, "{status:?}");
    container.says("no")
}

fn no_grace(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("killed").run()?;
    let server = pod.container("server", &test.image("http-02")?).start()?;
    let native = pod
        .container("native", &test.busybox()?)
        .args(&["sleep", "1000"])
        .start()?;
    for container in [server, native] {
        container.stop(0)?;
        let status = container.status()?;
        ensure!(status.exit_code == 137, "{status:?}");
    }
    Ok(())
}

fn ended(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("ended").run()?;
    let container = pod.container("app", &test.image("hello")?).start()?;
    container.wait()?;
    container.stop(10)?;
    container.stop(0)?;
    let status = container.status()?;
    ensure!(status.exit_code == 0, "{status:?}");
    container.remove()?;
    // Each call may come again.
    container.remove()
}

fn other_signal(test: &Test<'_>) -> Result<()> {
    use wisp_tests::oci::{Entry, Image};
    let program = std::fs::read(wisp_tests::paths::guest("tour")?)?;
    let image = test.built("tour-sigint", |reference, output| {
        Image::new(&["/tour.wasm"])
            .stop_signal("SIGINT")
            .files(&[Entry::File("tour.wasm", 0o755, &program)])?
            .write(reference, false, output)
    })?;
    let pod = test.pod("signal").run()?;
    let container = pod.container("app", &image).args(&["spin"]).start()?;
    container.says("spinning")?;
    container.stop(600)?;
    let status = container.status()?;
    ensure!(status.exit_code == 130, "{status:?}");
    Ok(())
}
