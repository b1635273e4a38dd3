//! Which files a guest has: the image's and the volumes', nothing of the host's.

use super::{Case, fails, works};
use anyhow::{Result, ensure};
use std::fs;
use std::time::UNIX_EPOCH;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::{Test, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "files",
        &[
            (
                "the root is the image and is read-only by default",
                root_read_only,
            ),
            (
                "io.wisp.fs.root=rw lets a guest write to its root",
                root_writable,
            ),
            (
                "a read-only container's root stays read-only",
                root_rw_refused,
            ),
            (
                "io.wisp.fs.root=none hides the image from the guest",
                root_none,
            ),
            ("volumes are as the spec mounts them", volumes),
            ("what a guest has kept is on the disk as it says", kept),
            ("the guest sees no /proc, /dev or /sys", no_system_mounts),
            ("links in an image lead nowhere but into the image", links),
        ],
    )
}

/// `tour` in an image that has some files.
fn tour(test: &Test<'_>, guest: &str) -> Result<String> {
    let program = fs::read(paths::guest(guest)?)?;
    let image = test.built(&format!("{guest}-files"), |reference, output| {
        Image::new(&["/tour.wasm"])
            .files(&[
                Entry::Dir("etc"),
                Entry::Dir("empty"),
                Entry::File("etc/passwd", 0o644, b"inside\n"),
                Entry::Link("absolute", "/etc/passwd"),
                Entry::Link("relative", "../../../../../../../../etc/passwd"),
                Entry::Link("shadow", "/etc/shadow"),
                Entry::Link("up", ".."),
                Entry::Link("proc-root", "/proc/1/root/etc/passwd"),
                Entry::File("tour.wasm", 0o755, &program),
            ])?
            .write(reference, false, output)
    })?;
    test.starts(&image, "/tour.wasm");
    Ok(image)
}

const BOTH: [&str; 2] = ["tour", "tour-module"];

fn root_read_only(test: &Test<'_>) -> Result<()> {
    for guest in BOTH {
        let image = tour(test, guest)?;
        let read = works(test.run(&image).args(&["read", "/etc/passwd"]))?;
        ensure!(read == "inside\n", "{read}");
        fails(test.run(&image).args(&["write", "/new", "text"]))?;
        fails(test.run(&image).args(&["write", "/etc/passwd", "text"]))?;
        fails(test.run(&image).args(&["append", "/etc/passwd", "text"]))?;
        fails(test.run(&image).args(&["mkdir", "/made"]))?;
        fails(test.run(&image).args(&["remove", "/etc/passwd"]))?;
        let run = test.run(&image).annotation("io.wisp.fs.root", "ro");
        fails(run.args(&["write", "/new", "text"]))?;
    }
    Ok(())
}

fn root_writable(test: &Test<'_>) -> Result<()> {
    for guest in BOTH {
        let image = tour(test, guest)?;
        let run = |args: &[&str]| {
            test.run(&image)
                .annotation("io.wisp.fs.root", "rw")
                .args(args)
        };
        let id = run(&["write", "/new", "text"]).create()?;
        let start = || test.ctr(&["task", "start", &id]);
        let ended = start()?;
        ensure!(ended.code == 0, "{ended:?}");
        test.ctr(&["task", "rm", &id])?;
        // The same container once more, with the same root.
        test.api()?.edit_spec(&id, |spec| {
            spec["process"]["args"] = serde_json::json!(["/tour.wasm", "read", "/new"]);
        })?;
        let ended = start()?;
        ensure!(ended.code == 0 && ended.out() == "text", "{ended:?}");
        test.ctr(&["task", "rm", &id])?;
        test.ctr_ok(&["container", "rm", &id])?;
        works(run(&["mkdir", "/made"]))?;
        works(run(&["remove", "/etc/passwd"]))?;
        // Another container of the image has what the image has.
        let read = works(run(&["read", "/etc/passwd"]))?;
        ensure!(read == "inside\n", "{read}");
    }
    Ok(())
}

fn root_rw_refused(test: &Test<'_>) -> Result<()> {
    let image = tour(test, "tour")?;
    let run = test.run(&image).flags(&["--read-only"]);
    let ended = run
        .annotation("io.wisp.fs.root", "rw")
        .args(&["write", "/new", "text"])
        .ctr()?;
    ensure!(ended.code != 0, "{ended:?}");
    Ok(())
}

fn root_none(test: &Test<'_>) -> Result<()> {
    let image = tour(test, "tour")?;
    let run = |args: &[&str]| {
        test.run(&image)
            .annotation("io.wisp.fs.root", "none")
            .args(args)
    };
    for args in [
        ["list", "/"],
        ["read", "/etc/passwd"],
        ["read", "etc/passwd"],
        ["read", "/tour.wasm"],
    ] {
        fails(run(&args))?;
    }
    // Volumes are there still, and through them nothing else.
    let volume = test.dir().join("volume");
    fs::create_dir(&volume)?;
    fs::write(volume.join("note"), "in the volume\n")?;
    let mount = format!(
        "type=bind,src={},dst=/data,options=rbind:rw",
        volume.display()
    );
    let run = |args: &[&str]| run(args).flags(&["--mount", &mount]);
    ensure!(
        works(run(&["read", "/data/note"]))? == "in the volume\n",
        "the volume"
    );
    works(run(&["write", "/data/new", "text"]))?;
    ensure!(
        fs::read_to_string(volume.join("new"))? == "text",
        "not in the volume"
    );
    fails(run(&["read", "/data/../etc/passwd"]))?;
    fails(run(&["list", "/"])).map(drop)
}

fn volumes(test: &Test<'_>) -> Result<()> {
    for guest in BOTH {
        let image = tour(test, guest)?;
        let volume = test.dir().join(format!("volume-{guest}"));
        fs::create_dir(&volume)?;
        fs::write(volume.join("note"), "in the volume\n")?;
        std::os::unix::fs::symlink("/etc/passwd", volume.join("link"))?;
        let run = |mode: &str, args: &[&str]| {
            let source = volume.display();
            let mount = format!("type=bind,src={source},dst=/data,options=rbind:{mode}");
            test.run(&image).flags(&["--mount", &mount]).args(args)
        };
        ensure!(
            works(run("ro", &["read", "/data/note"]))? == "in the volume\n",
            "ro"
        );
        fails(run("ro", &["write", "/data/new", "text"]))?;
        fails(run("ro", &["append", "/data/note", "text"]))?;
        works(run("rw", &["write", "/data/new", "text"]))?;
        ensure!(
            fs::read_to_string(volume.join("new"))? == "text",
            "not in the volume"
        );
        // The root stays as it is beside a writable volume.
        fails(run("rw", &["write", "/new", "text"]))?;
        // A link in a volume leads into the container, not to the host.
        let through = run("rw", &["read", "/data/link"]).ctr()?;
        ensure!(
            through.code == 1 || through.out() == "inside\n",
            "{through:?}"
        );
    }
    // A single file is a volume, too.
    let image = tour(test, "tour")?;
    let file = test.file("single", "one file\n")?;
    let mount = format!(
        "type=bind,src={},dst=/etc/single,options=rbind:ro",
        file.display()
    );
    let run = |args: &[&str]| test.run(&image).flags(&["--mount", &mount]).args(args);
    ensure!(
        works(run(&["read", "/etc/single"]))? == "one file\n",
        "a file as a volume"
    );
    fails(run(&["append", "/etc/single", "more"])).map(drop)
}

fn kept(test: &Test<'_>) -> Result<()> {
    for guest in BOTH {
        let image = tour(test, guest)?;
        let volume = test.dir().join(format!("kept-{guest}"));
        fs::create_dir(&volume)?;
        let mount = format!(
            "type=bind,src={},dst=/data,options=rbind:rw",
            volume.display()
        );
        let run = |args: &[&str]| test.run(&image).flags(&["--mount", &mount]).args(args);
        works(run(&["keep", "/data/file", "text"]))?;
        let file = volume.join("file");
        ensure!(fs::read(&file)? == b"text", "{guest}");
        let modified = fs::metadata(&file)?
            .modified()?
            .duration_since(UNIX_EPOCH)?;
        ensure!(modified.as_secs() == 1_000_000_000, "{guest}: {modified:?}");
    }
    Ok(())
}

fn no_system_mounts(test: &Test<'_>) -> Result<()> {
    for guest in BOTH {
        let image = tour(test, guest)?;
        let ended = test.run(&image).args(&["tree", "/"]).ctr()?;
        ensure!(ended.code == 0, "{ended:?}");
        let out = ended.out();
        for path in ["/proc/", "/dev/", "/sys/", "/run/"] {
            ensure!(
                !out.lines().any(|line| line.starts_with(path)),
                "{path} in {out}"
            );
        }
        ensure!(out.lines().any(|line| line == "/etc/passwd"), "{out}");
        fails(test.run(&image).args(&["read", "/proc/self/status"]))?;
    }
    Ok(())
}

fn links(test: &Test<'_>) -> Result<()> {
    for guest in BOTH {
        let image = tour(test, guest)?;
        for path in ["/absolute", "/relative", "/up/etc/passwd", "/proc-root"] {
            // Inside or not at all: an engine may refuse to follow.
            let ended = test.run(&image).args(&["read", path]).ctr()?;
            ensure!(
                ended.code == 1 || ended.out() == "inside\n",
                "{guest} {path}: {ended:?}"
            );
        }
        let up = works(test.run(&image).args(&["link", "/up"]))?;
        ensure!(up == "..\n", "{guest}: {up}");
        fails(test.run(&image).args(&["link", "/etc/passwd"]))?;
        fails(test.run(&image).args(&["read", "/shadow"]))?;
        fails(test.run(&image).args(&["read", "/../../../../etc/shadow"]))?;
    }
    Ok(())
}
