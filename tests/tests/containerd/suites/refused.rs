//! What cannot run: each an error that says why, in `ctr`'s own message, with
//! nothing left behind.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use wisp_tests::api::Streams;
use wisp_tests::images::Images;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::{Containerd, Run, Test, command, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "refused",
        &[
            ("an entrypoint that the image does not have", missing),
            ("a file that is neither Wasm nor native", not_wasm),
            ("an empty file", empty_file),
            ("truncated Wasm", truncated),
            ("invalid Wasm", invalid),
            ("a component of a world that nobody knows", wrong_world),
            ("a core module without a start", no_start),
            ("an interface that nobody provides", missing_import),
            ("a function that nobody provides", missing_import_module),
            ("precompiled code in place of Wasm", precompiled),
            ("empty args", empty_args),
            ("a path out of the root file system", path_out),
            ("a link out of the root file system", link_out),
            ("a directory as the program", directory),
            ("a configuration that is not TOML", malformed_config),
            (
                "a configuration of the node that is not TOML",
                malformed_node_config,
            ),
            ("a configuration with an unknown setting", unknown_setting),
            ("a configuration that is not there", missing_config),
            ("a compiler that is not there", missing_compiler),
            ("a compiler that fails", failing_compiler),
            ("a compiler that does not come back", hanging_compiler),
            ("an annotation that wisp does not know", unknown_annotation),
            (
                "an annotation whose value makes no sense",
                malformed_annotation,
            ),
            ("create fails and not start", create_fails),
            (
                "a cache that cannot be written is no reason not to run",
                unwritable_cache,
            ),
        ],
    )
}

/// Runs what must be refused, with every one of `words` in the message.
pub(super) fn refused(run: Run<'_, '_>, words: &[&str]) -> Result<()> {
    let ended = run.ctr()?;
    let err = ended.err();
    ensure!(ended.code != 0, "it ran: {ended:?}");
    ensure!(ended.stdout.is_empty(), "it said {}", ended.out());
    ensure!(err.starts_with("ctr: "), "not in ctr's own message: {err}");
    for word in words {
        ensure!(
            err.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in: {err}"
        );
    }
    Ok(())
}

/// An image with one file, which it starts.
pub(super) fn image_of(
    test: &Test<'_>,
    name: &str,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> Result<String> {
    let start = format!("/{path}");
    test.built(name, |reference, output| {
        Image::new(&[&start])
            .files(&[Entry::File(path, mode, bytes)])?
            .write(reference, false, output)
    })
}

fn hello() -> Result<Vec<u8>> {
    Ok(fs::read(paths::guest("hello")?)?)
}

fn missing(test: &Test<'_>) -> Result<()> {
    let hello = hello()?;
    let image = test.built("missing", |reference, output| {
        Image::new(&["/not-there.wasm"])
            .files(&[Entry::File("hello.wasm", 0o755, &hello)])?
            .write(reference, false, output)
    })?;
    refused(test.run(&image), &["/not-there.wasm", "looked for"])?;
    // A name without a slash is looked for in PATH.
    let image = test.busybox()?;
    refused(
        test.run(&image).args(&["no-such-program"]),
        &["no-such-program", "looked for"],
    )
}

fn not_wasm(test: &Test<'_>) -> Result<()> {
    let image = image_of(test, "not-wasm", "app.wasm", 0o755, b"just some text\n")?;
    refused(test.run(&image), &["/app.wasm", "wasm"])
}

fn empty_file(test: &Test<'_>) -> Result<()> {
    let image = image_of(test, "empty-file", "app.wasm", 0o755, b"")?;
    refused(test.run(&image), &["/app.wasm", "wasm"])
}

fn truncated(test: &Test<'_>) -> Result<()> {
    let hello = hello()?;
    let half = &hello[..hello.len() / 2];
    let image = image_of(test, "truncated", "app.wasm", 0o755, half)?;
    refused(test.run(&image), &["/app.wasm"])?;
    let image = image_of(test, "truncated-early", "app.wasm", 0o755, b"\0asm\x01")?;
    refused(test.run(&image), &["/app.wasm"])
}

fn invalid(test: &Test<'_>) -> Result<()> {
    // A module whose only section says it is a type section and holds rubbish.
    let rubbish = b"\0asm\x01\0\0\0\x01\x04\xff\xff\xff\xff";
    let image = image_of(test, "invalid", "app.wasm", 0o755, rubbish)?;
    refused(test.run(&image), &["/app.wasm"])
}

fn wrong_world(test: &Test<'_>) -> Result<()> {
    let image = test.image("wrong-world")?;
    refused(
        test.run(&image),
        &["example:calculator/calculate", "wasi:cli/run", "wasi:http"],
    )
}

fn no_start(test: &Test<'_>) -> Result<()> {
    let image = test.image("no-start")?;
    refused(test.run(&image), &["_start"])
}

fn missing_import(test: &Test<'_>) -> Result<()> {
    let image = test.image("missing-import")?;
    refused(test.run(&image), &["example:database/store"])
}

fn missing_import_module(test: &Test<'_>) -> Result<()> {
    let image = test.image("missing-import-module")?;
    refused(test.run(&image), &["database", "open"])
}

fn precompiled(test: &Test<'_>) -> Result<()> {
    let mut compile = Command::new(paths::wisp());
    let compiled = command::run(compile.arg("compile"), hello()?, Duration::from_secs(60))?;
    ensure!(compiled.code == 0, "wisp compile: {}", compiled.err());
    ensure!(!compiled.stdout.is_empty(), "wisp compile wrote nothing");
    for (name, path) in [("precompiled", "app.wasm"), ("cwasm", "app.cwasm")] {
        let image = image_of(test, name, path, 0o755, &compiled.stdout)?;
        refused(test.run(&image), &[path, "precompiled"])?;
    }
    Ok(())
}

fn empty_args(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let id = test
        .run(&image)
        .create_with(|spec| spec["process"]["args"] = serde_json::json!([]))?;
    let ended = test.ctr(&["task", "start", &id])?;
    ensure!(ended.code != 0, "it ran: {ended:?}");
    ensure!(ended.err().contains("args"), "{}", ended.err());
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

/// A Wasm file of the host, which no image may reach.
fn host_file(test: &Test<'_>) -> Result<PathBuf> {
    let path = test.file("host.wasm", hello()?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn path_out(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let host = host_file(test)?.display().to_string();
    for outside in [
        format!("/../../../../../../../..{host}"),
        format!("../../../../../../../..{host}"),
        host,
    ] {
        let id = test.run(&image).create_with(|spec| {
            spec["process"]["args"] = serde_json::json!([outside]);
        })?;
        let ended = test.ctr(&["task", "start", &id])?;
        ensure!(
            ended.code != 0 && ended.stdout.is_empty(),
            "it ran: {ended:?}"
        );
        ensure!(ended.err().contains("host.wasm"), "{}", ended.err());
        test.ctr_ok(&["container", "rm", &id])?;
    }
    Ok(())
}

fn link_out(test: &Test<'_>) -> Result<()> {
    let outside = host_file(test)?;
    let absolute = outside.display().to_string();
    let relative = format!("../../../../../../../../..{absolute}");
    let magic = "/proc/self/exe";
    for (name, target) in [
        ("absolute", absolute.as_str()),
        ("relative", relative.as_str()),
        ("magic", magic),
    ] {
        // The target is another in each test, so the image cannot be shared.
        let tar = test.dir().join(format!("{name}.tar"));
        let reference = format!("localhost/wisp/link-{name}:test");
        Image::new(&["/app.wasm"])
            .files(&[Entry::Link("app.wasm", target)])?
            .write(&reference, false, &tar)?;
        test.import(&tar)?;
        refused(test.run(&reference), &["/app.wasm"])?;
    }
    Ok(())
}

fn directory(test: &Test<'_>) -> Result<()> {
    let image = test.built("directory", |reference, output| {
        Image::new(&["/app.wasm"])
            .files(&[Entry::Dir("app.wasm")])?
            .write(reference, false, output)
    })?;
    refused(test.run(&image), &["/app.wasm"])
}

fn malformed_config(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let path = test.dir().join("config.toml").display().to_string();
    let run = test.run(&image).config("[cache]\ndir = \n")?;
    refused(run, &[&path, "line 2"])
}

fn malformed_node_config(shared: &Test<'_>) -> Result<()> {
    // Nobody else's containerd: WISP_CONFIG is the same for all of its shims.
    let node = Containerd::start(shared.node.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let image = test.image("hello")?;
    fs::write(node.settings(), "cache = [\n")?;
    refused(
        test.run(&image),
        &[&node.settings().display().to_string(), "line 1"],
    )?;
    fs::remove_file(node.settings())?;
    refused(test.run(&image), &[&node.settings().display().to_string()])?;
    test.nothing_left()
}

fn unknown_setting(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let path = test.dir().join("config.toml").display().to_string();
    let run = test.run(&image).config("[cache]\ndirectory = \"/tmp\"\n")?;
    refused(run, &[&path, "directory"])
}

fn missing_config(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let run = test
        .run(&image)
        .flags(&["--runtime-config-path", "/nonexistent/wisp.toml"]);
    refused(run, &["/nonexistent/wisp.toml"])
}

/// A configuration with a cache that has nothing yet, and this compiler.
pub(super) fn with_compiler(test: &Test<'_>, compiler: &str, more: &str) -> String {
    let cache = test.dir().join("cache");
    format!("[cache]\ndir = {cache:?}\n[compiler]\npath = {compiler:?}\n{more}")
}

/// A program in the compiler's place.
fn script(test: &Test<'_>, text: &str) -> Result<String> {
    let path = test.file("compiler", format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}

fn nothing_kept(test: &Test<'_>) -> Result<()> {
    let kept: Vec<_> = fs::read_dir(test.dir().join("cache"))
        .map(|entries| entries.filter_map(Result::ok).map(|e| e.path()).collect())
        .unwrap_or_default();
    ensure!(kept.is_empty(), "in the cache: {kept:?}");
    Ok(())
}

fn missing_compiler(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let config = with_compiler(test, "/nonexistent/wisp", "");
    refused(test.run(&image).config(&config)?, &["/nonexistent/wisp"])?;
    nothing_kept(test)
}

fn failing_compiler(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let compiler = script(test, "echo no room for a compiler >&2; exit 1")?;
    let config = with_compiler(test, &compiler, "");
    refused(
        test.run(&image).config(&config)?,
        &["no room for a compiler"],
    )?;
    // One that says nothing and writes nothing.
    let compiler = script(test, "exec true")?;
    let config = with_compiler(test, &compiler, "");
    refused(test.run(&image).config(&config)?, &[&compiler])?;
    // One that is killed.
    let compiler = script(test, "kill -9 $$")?;
    let config = with_compiler(test, &compiler, "");
    refused(test.run(&image).config(&config)?, &["signal"])?;
    nothing_kept(test)
}

fn hanging_compiler(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let compiler = script(test, "exec sleep 1000")?;
    let config = with_compiler(test, &compiler, "timeout_seconds = 1\n");
    refused(test.run(&image).config(&config)?, &["1 s"])?;
    nothing_kept(test)
}

fn unknown_annotation(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    let run = test.run(&image).annotation("io.wisp.fs.rot", "ro");
    refused(run, &["io.wisp.fs.rot"])
}

fn malformed_annotation(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    for (name, value) in [
        ("io.wisp.fs.root", "perhaps"),
        ("io.wisp.net.outbound", "tcp://example.com:port"),
        ("io.wisp.net.listen", "gopher://*"),
        ("io.wisp.http.listen", "everywhere"),
    ] {
        refused(test.run(&image).annotation(name, value), &[name, value])?;
    }
    Ok(())
}

fn create_fails(test: &Test<'_>) -> Result<()> {
    let image = test.image("wrong-world")?;
    let id = test.run(&image).create()?;
    let error = test.api()?.create(&id, &Streams::default()).err();
    let error = format!("{:#}", error.context("created")?);
    ensure!(error.contains("example:calculator/calculate"), "{error}");
    test.ctr_ok(&["container", "rm", &id]).map(drop)
}

fn unwritable_cache(test: &Test<'_>) -> Result<()> {
    let image = test.image("hello")?;
    // Not even root can make a directory there.
    let cache = format!("/proc/wisp-cache-{}", test.namespace());
    let config = format!("[cache]\ndir = {cache:?}\n");
    let ended = test.run(&image).config(&config)?.ctr()?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(ended.out() == "hello from a component\n", "{ended:?}");
    ensure!(
        ended.stderr.is_empty(),
        "the guest's stderr has {}",
        ended.err()
    );
    let log = test.node.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains(&cache)).collect();
    ensure!(
        said.len() == 1 && said[0].contains("level=warn") && said[0].contains("c1"),
        "{said:#?}"
    );
    Ok(())
}
