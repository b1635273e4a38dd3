//! Puts a shim's program that counts what it executes under load, for the profile
//! that releases are optimised by. What it serves are the examples: none of them is
//! measured.

use crate::http::cases::{AT_ONCE, CONNECTIONS, REUSE};
use crate::http::connection::Exchange;
use crate::http::cores::Cores;
use crate::http::load::{self, Extent, Pace};
use crate::http::running::{Running, free_address};
use crate::http::servers::upstream;
use crate::started;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The examples, and how many bytes their `/` answers.
const GUESTS: [(&str, u64); 2] = [("http-02", 25), ("http-03", 25)];

/// How many lines `/stream` sends, which a guest writes one by one.
const LINES: u64 = 1000;

/// Asks for a header's value, a long one, and a line break.
fn long() -> Exchange {
    const LENGTH: usize = 32 << 10;
    let value = "x".repeat(LENGTH);
    let head =
        format!("GET /header?name=long HTTP/1.1\r\nhost: localhost\r\nlong: {value}\r\n\r\n");
    Exchange {
        request: head.into_bytes(),
        response: LENGTH as u64 + 1,
    }
}

#[derive(Debug, clap::Args)]
pub struct Train {
    /// The program, built with the feature `train`
    #[arg(long)]
    program: PathBuf,
    /// The `wisp` that compiles for it
    #[arg(long)]
    compiler: PathBuf,
    /// Where the examples are
    #[arg(long, default_value = "target/guests")]
    guests: PathBuf,
}

impl Train {
    /// Serves each example in each way, and asks for all that it has.
    ///
    /// # Errors
    /// A wrong answer, or a server that does not end well: it would not have
    /// written what it counted.
    pub fn run(&self) -> Result<()> {
        let dir = tempfile::Builder::new().prefix("wisp-train-").tempdir()?;
        let _noted = started::directory(dir.path());
        let config = dir.path().join("wisp.toml");
        let compiler = fs::canonicalize(&self.compiler)
            .with_context(|| self.compiler.display().to_string())?;
        let cache = dir.path().join("aot");
        let text = format!("[cache]\ndir = {cache:?}\n[compiler]\npath = {compiler:?}\n");
        fs::write(&config, text)?;
        let cores = Cores::with(1)?;
        let upstream = upstream(&cores, dir.path())?;
        let reuse = format!("io.wisp.http.reuse={REUSE}");
        let shared = format!("io.wisp.http.concurrency={AT_ONCE}");
        let outbound = format!("io.wisp.net.outbound=http://{}", upstream.address);
        for (guest, length) in GUESTS {
            for way in [&[][..], &[&reuse], &[&reuse, &shared]] {
                let address = free_address()?;
                let mut command = Command::new(&self.program);
                command
                    .env("WISP_CONFIG", &config)
                    .arg("train")
                    .arg(self.guests.join(guest).with_extension("wasm"))
                    .args([&address.to_string(), &outbound])
                    .args(way);
                let log = dir.path().join("server.log");
                let mut server = Running::spawn(address, command, &cores.server, &log)?;
                let done = self.ask(
                    &mut server,
                    length,
                    &format!("http://{}/", upstream.address),
                );
                let done = done.and_then(|()| server.end());
                done.with_context(|| {
                    let said = fs::read_to_string(&log).unwrap_or_default();
                    format!("{guest} {way:?}, which said:\n{said}")
                })?;
                println!("train: {guest} {way:?}");
            }
        }
        Ok(())
    }

    fn ask(&self, server: &mut Running<'_>, length: u64, other: &str) -> Result<()> {
        let lines = (0..LINES).map(|line| format!("line {line}\n").len() as u64);
        let body = vec![b'.'; 64 << 10];
        server.wait(&Exchange::get("/", length))?;
        for (exchange, requests) in [
            (Exchange::get("/", length), 40_000),
            (Exchange::get("/method", 4), 4000),
            // A body that a guest writes at once. A loop over bytes that has only seen
            // short ones is compiled for those.
            (long(), 8000),
            (Exchange::post("/echo", &body), 4000),
            (Exchange::post("/echo", &body[..1000]), 4000),
            (
                Exchange::get(&format!("/stream?n={LINES}"), lines.sum()),
                100,
            ),
            (Exchange::get(&format!("/outbound?url={other}"), 6), 4000),
        ] {
            let extent = Extent::Requests(requests);
            load::run(server.address, &exchange, CONNECTIONS, Pace::Closed, extent)?;
        }
        Ok(())
    }
}
