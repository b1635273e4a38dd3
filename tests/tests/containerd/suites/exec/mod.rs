//! Exec: further processes in a container.

mod guests;
mod life;
mod native;

use super::Case;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use wisp_tests::api::{Exec, Streams};
use wisp_tests::fifo::Reader;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::run::{Ended, Running};
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Test, paths};

pub fn cases() -> Vec<Case> {
    let cases = [&guests::cases()[..], &native::cases(), &life::cases()].concat();
    super::cases("exec", &cases)
}

/// A process that has been added, with its output.
struct Added<'c> {
    exec: Exec<'c>,
    stdout: Reader,
    stderr: Reader,
}

impl<'c> Added<'c> {
    fn new(test: &'c Test<'_>, id: &str, exec_id: &str, process: &Value) -> Result<Self> {
        Self::with_stdin(test, id, exec_id, process, String::new())
    }

    fn with_stdin(
        test: &'c Test<'_>,
        id: &str,
        exec_id: &str,
        process: &Value,
        stdin: String,
    ) -> Result<Self> {
        // An exec id may come again, a FIFO's name may not.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = |name: &str| test.dir().join(format!("{id}-{exec_id}-{count}-{name}"));
        let (stdout, stderr) = (
            Reader::new(&place("stdout"))?,
            Reader::new(&place("stderr"))?,
        );
        let exec = test.api()?.process(id, exec_id);
        let streams = Streams {
            stdin,
            stdout: stdout.path(),
            stderr: stderr.path(),
            terminal: false,
        };
        exec.add_with(process, &streams)?;
        Ok(Self {
            exec,
            stdout,
            stderr,
        })
    }

    fn finish(self) -> Result<Ended> {
        let code = self.exec.wait()?;
        let deleted = self.exec.delete()?;
        ensure!(code == deleted, "wait said {code}, delete {deleted}");
        Ok(Ended {
            code: i32::try_from(code)?,
            stdout: self.stdout.to_end(PATIENCE)?,
            stderr: self.stderr.to_end(PATIENCE)?,
        })
    }
}

fn process(args: &[&str]) -> Value {
    json!({
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin", "ONLY=exec"],
        "user": { "uid": 0, "gid": 0 },
    })
}

/// Executes to the end.
fn execute(test: &Test<'_>, id: &str, exec_id: &str, process: &Value) -> Result<Ended> {
    let added = Added::new(test, id, exec_id, process)?;
    added.exec.start().inspect_err(|_| {
        let _ = added.exec.delete();
    })?;
    added.finish()
}

/// A guest that sleeps.
fn sleeping<'t, 'n>(test: &'t Test<'n>) -> Result<Running<'t, 'n>> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    Ok(running)
}

/// An image with a Wasm program, a static busybox and what a native one needs.
fn mixed(test: &Test<'_>) -> Result<String> {
    let reference = test.built("mixed", |reference, output| {
        let tour = fs::read(paths::guest("tour")?)?;
        let hello = fs::read(paths::guest("hello")?)?;
        let busybox = fs::read("/bin/busybox")?;
        let mut entries = vec![
            Entry::Dir("bin"),
            Entry::Dir("dev"),
            Entry::Dir("proc"),
            Entry::Dir("work"),
            Entry::File("tour.wasm", 0o644, &tour),
            Entry::File("bin/hello.wasm", 0o644, &hello),
            Entry::File("bin/busybox", 0o755, &busybox),
        ];
        let links: Vec<String> = [
            "sh", "id", "cat", "ls", "pwd", "env", "grep", "mkdir", "sleep",
        ]
        .iter()
        .map(|name| format!("bin/{name}"))
        .collect();
        entries.extend(links.iter().map(|link| Entry::Link(link, "busybox")));
        Image::new(&["/tour.wasm"])
            .files(&entries)?
            .write(reference, false, output)
    })?;
    test.starts(&reference, "/tour.wasm");
    Ok(reference)
}

fn namespaces(pid: u32) -> Result<Vec<String>> {
    ["mnt", "uts", "ipc", "pid", "net", "user"]
        .iter()
        .map(|name| {
            let link = fs::read_link(
                Path::new("/proc")
                    .join(pid.to_string())
                    .join("ns")
                    .join(name),
            )?;
            Ok(link.display().to_string())
        })
        .collect()
}
