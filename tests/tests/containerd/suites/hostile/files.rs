//! Ways out of a directory, and changes to what is there to be read.

use super::super::{Case, cases as all, fails};
use super::{LINKS, SECRET, denied, link_out, mount, volume};
use anyhow::{Result, ensure};
use std::fs;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::{Test, paths};

/// How many attempts `hostile files` makes, less some.
const MANY: usize = 600;

pub fn cases() -> Vec<Case> {
    all(
        "hostile files",
        &[
            ("no name and no link leads out of a volume", volumes),
            (
                "no name and no link leads out of a directory of an image",
                images,
            ),
            ("a module finds no way out by links either", modules),
            ("what is read-only is not changed by any way", read_only),
        ],
    )
}

fn volumes(test: &Test<'_>) -> Result<()> {
    let image = test.image("hostile")?;
    let volume = volume(test, "volume")?;
    link_out(&volume.join("in"))?;
    // Of the volume, WASI has one directory; the process could reach it all.
    let run = test
        .run(&image)
        .flags(&["--mount", &mount(&volume, "rw")])
        .annotation("io.wisp.fs.preopens", "/data/in");
    let (out, _) = denied(run.args(&["files", "/data/in"]), MANY)?;
    // For the reason that is meant.
    let out = out
        .lines()
        .find(|line| line.starts_with("denied open ../secret:"));
    ensure!(
        out.is_some_and(|line| line.contains("not-permitted")),
        "{out:?}"
    );
    ensure!(
        fs::read_to_string(volume.join("secret"))? == SECRET,
        "changed"
    );
    let around: Vec<_> = fs::read_dir(&volume)?.collect();
    ensure!(around.len() == 2, "{around:?}");
    Ok(())
}

fn images(test: &Test<'_>) -> Result<()> {
    let program = fs::read(paths::guest("hostile")?)?;
    let image = test.built("hostile-links", |reference, output| {
        let links = LINKS.map(|(name, target)| (format!("data/in/{name}"), target));
        let mut entries = vec![
            Entry::Dir("data"),
            Entry::Dir("data/in"),
            Entry::Dir("data/in/inner"),
            Entry::File("data/secret", 0o644, SECRET.as_bytes()),
            Entry::File("data/in/own", 0o644, b"own\n"),
            Entry::File("hostile.wasm", 0o755, &program),
        ];
        entries.extend(links.iter().map(|(name, target)| Entry::Link(name, target)));
        Image::new(&["/hostile.wasm"])
            .files(&entries)?
            .write(reference, false, output)
    })?;
    test.starts(&image, "/hostile.wasm");
    let run = test
        .run(&image)
        .annotation("io.wisp.fs.root", "rw")
        .annotation("io.wisp.fs.preopens", "/data/in");
    denied(run.args(&["files", "/data/in"]), MANY).map(drop)
}

fn modules(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour-module")?;
    let volume = volume(test, "volume")?;
    link_out(&volume.join("in"))?;
    let run = |args: &[&str]| {
        let run = test
            .run(&image)
            .flags(&["--mount", &mount(&volume, "rw")])
            .annotation("io.wisp.fs.preopens", "/data/in");
        fails(run.args(args))
    };
    for name in [
        "../secret",
        "inner/../../secret",
        "host-file",
        "host-up/secret",
        "host-absolute/secret",
        "host-proc/data/secret",
    ] {
        let path = format!("/data/in/{name}");
        run(&["read", &path])?;
        run(&["append", &path, "more"])?;
    }
    ensure!(
        fs::read_to_string(volume.join("secret"))? == SECRET,
        "changed"
    );
    Ok(())
}

fn read_only(test: &Test<'_>) -> Result<()> {
    let image = test.image("hostile")?;
    let volume = volume(test, "volume")?;
    let kept = volume.join("kept");
    fs::create_dir(&kept)?;
    fs::write(kept.join("own"), "kept\n")?;
    for preopens in ["/data/kept:ro, /data/in", "/data/kept:ro, /data/in:rw"] {
        let run = test
            .run(&image)
            .flags(&["--mount", &mount(&volume, "rw")])
            .annotation("io.wisp.fs.preopens", preopens);
        denied(run.args(&["read-only", "/data/kept", "/data/in"]), 20)?;
    }
    // The kernel's word in place of WASI's: there, the guest may try.
    let run = test
        .run(&image)
        .flags(&["--mount", &mount(&volume, "ro")])
        .annotation("io.wisp.fs.preopens", "/data/kept, /data/in");
    denied(run.args(&["read-only", "/data/kept", "/data/in"]), 20)?;
    ensure!(fs::read_to_string(kept.join("own"))? == "kept\n", "changed");
    let there: Vec<_> = fs::read_dir(&kept)?.collect();
    ensure!(there.len() == 1, "{there:?}");
    Ok(())
}
