//! Images that grant themselves something: by what they are labelled with, bring
//! along or set. Only pods and nodes grant.

use super::super::refused::{image_of, refused};
use super::super::{Case, cases as all, fails, works};
use super::denied;
use super::network::Host;
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::Duration;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::{Test, command, paths};

pub fn cases() -> Vec<Case> {
    all(
        "hostile images",
        &[
            ("an image grants itself nothing", nothing),
            ("native code is not run, however it comes", native_code),
        ],
    )
}

/// What an image would like to have, in every way to say so.
fn greedy(test: &Test<'_>, guest: &str) -> Result<String> {
    let program = fs::read(paths::guest(guest)?)?;
    let wishes = json!({
        "io.wisp.net.outbound": "*, tcp://127.0.0.0/8, udp://127.0.0.0/8",
        "io.wisp.net.listen": "*",
        "io.wisp.fs.root": "rw",
        "io.wisp.profile": "open",
        "io.wisp.memory.max": "8Gi",
        "io.wisp.config.greedy": "yes",
    });
    let config = b"[policy]\nprofile = \"open\"\n";
    let image = test.built(&format!("greedy-{guest}"), |reference, output| {
        Image::new(&["/app.wasm"])
            .env(&[
                "io.wisp.net.outbound=*",
                "io.wisp.fs.root=rw",
                "io.wisp.profile=open",
                "WISP_CONFIG=/etc/wisp/config.toml",
                "WISP_PROFILE=open",
                "WISP_NET_OUTBOUND=*",
            ])
            .labels(wishes.clone())
            .annotations(wishes.clone())
            .files(&[
                Entry::Dir("etc"),
                Entry::Dir("etc/wisp"),
                Entry::File("etc/wisp/config.toml", 0o644, config),
                Entry::File("app.wasm", 0o755, &program),
            ])?
            .write(reference, false, output)
    })?;
    test.starts(&image, "/app.wasm");
    Ok(image)
}

fn nothing(test: &Test<'_>) -> Result<()> {
    let host = Host::listen()?;
    let target = format!("127.0.0.1:{}", host.port);
    let hostile = greedy(test, "hostile")?;
    for protocol in ["tcp", "udp"] {
        let run = test.run(&hostile).net_host();
        let (_, err) = denied(run.args(&["connect", protocol, &target]), 1)?;
        ensure!(err.contains("wisp: refused: "), "{err}");
    }
    host.nobody_came()?;
    let tour = greedy(test, "tour")?;
    let run = |args: &[&str]| test.run(&tour).net_host().args(args);
    fails(run(&["write", "/new", "text"]))?;
    fails(run(&["tcp-listen", "127.0.0.1:0"]))?;
    fails(run(&["resolve", "localhost"]))?;
    let limited = run(&["hog", "1000"]).flags(&["--memory-limit", "33554432"]);
    ensure!(fails(limited)?.contains("the memory limit was reached"));
    // Of its own environment, it may say what it likes.
    ensure!(works(run(&["env"]))?.contains("io.wisp.profile=open"));
    let config = greedy(test, "config")?;
    ensure!(works(test.run(&config))?.is_empty());
    Ok(())
}

fn native_code(test: &Test<'_>) -> Result<()> {
    let mut compile = Command::new(paths::wisp());
    let hello = fs::read(paths::guest("hello")?)?;
    let compiled = command::run(compile.arg("compile"), hello, Duration::from_secs(60))?;
    ensure!(compiled.code == 0, "wisp compile: {}", compiled.err());
    let own = compiled.stdout;
    let mut other_version = own.clone();
    for (at, bytes) in own.windows(6).enumerate() {
        if bytes == b"48.0.8" {
            other_version[at..at + 6].copy_from_slice(b"47.0.0");
        }
    }
    let mut hidden = b"\0asm\x01\0\0\0".to_vec();
    hidden.extend_from_slice(&own);
    for (name, bytes) in [
        ("own", &own),
        ("other-version", &other_version),
        ("cut", &own[..own.len() / 2].to_vec()),
        ("hidden", &hidden),
    ] {
        let image = image_of(test, &format!("native-{name}"), "app.wasm", 0o755, bytes)?;
        refused(test.run(&image), &["app.wasm"])?;
        // A file of the cache's own kind, in the place where an image might hope
        // that it is looked for.
        let image = test.built(&format!("native-layer-{name}"), |reference, output| {
            Image::new(&["app.wasm"])
                .files(&[Entry::Dir("var"), Entry::File("var/app.aot", 0o644, bytes)])?
                .write(reference, false, output)
        })?;
        refused(test.run(&image).args(&["/var/app.aot"]), &["app.aot"])?;
    }
    Ok(())
}
