//! Standard input, output and error, in each form containerd hands them over.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use wisp_tests::api::Streams;
use wisp_tests::fifo::{self, Reader};
use wisp_tests::wait::PATIENCE;
use wisp_tests::{Test, run::Run};

pub fn cases() -> Vec<Case> {
    super::cases(
        "streams",
        &[
            ("stdin arrives whole at a guest", stdin_whole),
            ("stdin arrives whole at a preview 1 guest", stdin_module),
            (
                "a guest answers line by line until its stdin is closed",
                conversation,
            ),
            ("64 MiB through stdout arrive whole and in order", flood),
            ("stderr stays apart from stdout", apart),
            ("a task without streams runs", none),
            ("a file URI gets what a guest says", file_uri),
            (
                "a file URI gets what a native program says",
                native_file_uri,
            ),
            (
                "a logging program gets both streams and knows whose they are",
                binary_uri,
            ),
            ("an URI of an unknown kind is refused by name", unknown_uri),
            ("a reader that comes late misses nothing", late_reader),
        ],
    )
}

/// The hash that `tour count` prints.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn counts_whole(test: &Test<'_>, guest: &str) -> Result<()> {
    let image = test.image(guest)?;
    let input: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let expected = format!("{} {:016x}\n", input.len(), fnv1a(&input));
    let ended = test.run(&image).args(&["count"]).fed(&input)?;
    ensure!(
        ended.code == 0 && ended.out() == expected,
        "expected {expected}, got {ended:?}"
    );
    Ok(())
}

fn stdin_whole(test: &Test<'_>) -> Result<()> {
    counts_whole(test, "tour")
}

fn stdin_module(test: &Test<'_>) -> Result<()> {
    counts_whole(test, "tour-module")
}

fn conversation(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["cat"]).create()?;
    let mut stdin = fifo::writer(&test.dir().join("stdin"))?;
    let stdout = Reader::new(&test.dir().join("stdout"))?;
    let streams = Streams {
        stdin: test.dir().join("stdin").display().to_string(),
        stdout: stdout.path(),
        stderr: String::new(),
        ..Streams::default()
    };
    let api = test.api()?;
    api.create(&id, &streams)?;
    api.start(&id)?;
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes())?;
        stdout.until(line, PATIENCE)?;
    }
    drop(stdin);
    api.close_stdin(&id)?;
    ensure!(api.wait(&id)? == 0, "not 0");
    api.delete(&id)?;
    ensure!(
        stdout.to_end(PATIENCE)? == b"first\nsecond\n",
        "{:?}",
        stdout.so_far()
    );
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn is_flood(bytes: &[u8], size: usize) -> Result<()> {
    ensure!(bytes.len() == size, "{} of {size} bytes", bytes.len());
    for (index, line) in bytes.chunks(16).enumerate() {
        let expected = format!("{:015x}\n", index * 16);
        ensure!(line == expected.as_bytes(), "at {}: {line:?}", index * 16);
    }
    Ok(())
}

fn flood(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let ended = test.run(&image).args(&["flood", "64m"]).ctr()?;
    ensure!(ended.code == 0, "exited {}: {}", ended.code, ended.err());
    is_flood(&ended.stdout, 64 << 20)
}

fn late_reader(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = test.run(&image).args(&["flood", "32k"]).create()?;
    // Less than a pipe holds, so that the guest ends without anybody reading.
    let path = test.dir().join("late");
    let open = fifo::writer(&path)?;
    drop(open);
    let streams = Streams {
        stdout: path.display().to_string(),
        ..Streams::default()
    };
    let api = test.api()?;
    api.create(&id, &streams)?;
    api.start(&id)?;
    ensure!(api.wait(&id)? == 0, "not 0");
    // The shim keeps the FIFO until Delete, and with it what is in there.
    let reader = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(&path);
    api.delete(&id)?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut reader?, &mut bytes)?;
    is_flood(&bytes, 32 << 10)?;
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn apart(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let ended = test.run(&image).args(&["both"]).ctr()?;
        ensure!(ended.code == 0, "{ended:?}");
        ensure!(ended.out() == "stdout 1\nstdout 2\nstdout 3\n", "{ended:?}");
        ensure!(ended.err() == "stderr 1\nstderr 2\nstderr 3\n", "{ended:?}");
    }
    Ok(())
}

/// Runs a container to its end with the same target for both streams.
fn to_end(test: &Test<'_>, run: Run<'_, '_>, target: &str) -> Result<u32> {
    let id = run.create()?;
    let streams = Streams {
        stdin: String::new(),
        stdout: target.to_owned(),
        stderr: target.to_owned(),
        ..Streams::default()
    };
    let api = test.api()?;
    let ended = api.create(&id, &streams).and_then(|_| {
        api.start(&id)?;
        let code = api.wait(&id)?;
        api.delete(&id)?;
        Ok(code)
    });
    test.ctr_ok(&["container", "rm", &id])?;
    ended
}

fn none(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let code = to_end(test, test.run(&image).args(&["flood", "1m"]), "")?;
    ensure!(code == 0, "exited {code}");
    let code = to_end(test, test.run(&image).args(&["cat"]), "")?;
    ensure!(code == 0, "cat without stdin exited {code}");
    Ok(())
}

fn file_uri(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    says_into_file(test, test.run(&image).args(&["both"]))
}

fn native_file_uri(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = "for n in 1 2 3; do echo stdout $n; echo stderr $n >&2; done";
    says_into_file(test, test.run(&image).args(&["sh", "-c", script]))
}

fn says_into_file(test: &Test<'_>, run: Run<'_, '_>) -> Result<()> {
    let path = test.file("log", "what was there\n")?;
    let code = to_end(test, run, &format!("file://{}", path.display()))?;
    ensure!(code == 0, "exited {code}");
    let log = fs::read_to_string(path)?;
    let mut lines: Vec<&str> = log.lines().collect();
    ensure!(
        lines.first() == Some(&"what was there"),
        "overwritten: {log}"
    );
    lines.sort_unstable();
    let said = [
        "stderr 1", "stderr 2", "stderr 3", "stdout 1", "stdout 2", "stdout 3",
    ];
    ensure!(lines[..6] == said, "{log}");
    Ok(())
}

fn binary_uri(test: &Test<'_>) -> Result<()> {
    let dir = test.dir().display().to_string();
    // Standard output is descriptor 3, standard error 4; closing 5 says "ready".
    let script = format!(
        "#!/bin/sh\n\
         echo \"$CONTAINER_NAMESPACE $CONTAINER_ID $*\" > {dir}/whose\n\
         exec 5>&-\n\
         cat <&3 > {dir}/out &\n\
         cat <&4 > {dir}/err &\n\
         wait\n\
         echo done > {dir}/done\n"
    );
    let logger = test.file("logger", script)?;
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755))?;
    let image = test.image("tour")?;
    let target = format!("binary://{}?key=value", logger.display());
    let code = to_end(test, test.run(&image).args(&["both"]), &target)?;
    ensure!(code == 0, "exited {code}");
    let read = |name: &str| -> Result<String> {
        let path = Path::new(&dir).join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    ensure!(
        read("whose")? == format!("{} c1 key value\n", test.namespace()),
        "{}",
        read("whose")?
    );
    ensure!(
        read("out")? == "stdout 1\nstdout 2\nstdout 3\n",
        "{}",
        read("out")?
    );
    ensure!(
        read("err")? == "stderr 1\nstderr 2\nstderr 3\n",
        "{}",
        read("err")?
    );
    // Delete waits for the logger, so that nothing it has to say is lost.
    ensure!(read("done")? == "done\n", "{}", read("done")?);
    Ok(())
}

fn unknown_uri(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let run = test.run(&image).args(&["true"]);
    let error = to_end(test, run, "gopher://nowhere")
        .err()
        .context("accepted")?;
    ensure!(format!("{error:#}").contains("gopher"), "{error:#}");
    Ok(())
}
