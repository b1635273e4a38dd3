//! Images with Wasm layers, read from containerd's content store.

use super::Case;
use anyhow::{Context, Result, ensure};
use std::fs;
use wisp_tests::oci::{self, Entry, Image};
use wisp_tests::{Test, Version, paths};

/// The media types of a Wasm layer.
const TYPES: [&str; 3] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

pub fn cases() -> Vec<Case> {
    let mut cases = super::cases(
        "artifacts",
        &[
            ("a Wasm layer of each media type runs", each_type),
            (
                "a Wasm layer runs also when the image is an index",
                in_index,
            ),
            ("an image that `wisp pack --artifact` made runs", packed),
            (
                "an artifact with files that `wisp pack` made runs",
                packed_with_files,
            ),
            (
                "tar layers beside the Wasm layer are the guest's files",
                beside_files,
            ),
            ("of several Wasm layers the title chooses", by_title),
            ("several Wasm layers and no title are refused", ambiguous),
            (
                "a Wasm file in the image comes before Wasm layers",
                file_first,
            ),
            (
                "a Wasm layer whose bytes have another digest is refused",
                tampered,
            ),
        ],
    );
    for case in &mut cases {
        case.on = Version::unpacks_wasm_layers;
    }
    cases
}

fn hello() -> Result<Vec<u8>> {
    Ok(fs::read(paths::guest("hello")?)?)
}

fn says_hello(test: &Test<'_>, image: &str) -> Result<()> {
    let ended = test.run(image).ctr()?;
    ensure!(
        ended.code == 0,
        "{image}: exited {}: {}",
        ended.code,
        ended.err()
    );
    ensure!(
        ended.out() == "hello from a component\n",
        "{image}: {ended:?}"
    );
    Ok(())
}

fn each_type(test: &Test<'_>) -> Result<()> {
    for (index, media_type) in TYPES.iter().enumerate() {
        let hello = hello()?;
        let image = test.built(&format!("type-{index}"), |reference, output| {
            Image::new(&["/hello.wasm"])
                .wasm(media_type, Some("hello.wasm"), hello)
                .write(reference, false, output)
        })?;
        says_hello(test, &image)?;
    }
    Ok(())
}

fn in_index(test: &Test<'_>) -> Result<()> {
    let hello = hello()?;
    let image = test.built("index", |reference, output| {
        Image::new(&["/hello.wasm"])
            .wasm(TYPES[0], None, hello)
            .write(reference, true, output)
    })?;
    says_hello(test, &image)
}

fn packed(test: &Test<'_>) -> Result<()> {
    let image = test.packed("artifact", &paths::guest("hello")?, &["--artifact"])?;
    says_hello(test, &image)
}

fn packed_with_files(test: &Test<'_>) -> Result<()> {
    let note = test.file("note", "a note\n")?;
    let image = test.packed(
        "artifact-files",
        &paths::guest("tour")?,
        &[
            "--artifact",
            "--layer-type",
            "wasm",
            "--add",
            &format!("{}:/etc/note", note.display()),
        ],
    )?;
    let ended = test.run(&image).args(&["read", "/etc/note"]).ctr()?;
    ensure!(ended.code == 0 && ended.out() == "a note\n", "{ended:?}");
    Ok(())
}

fn beside_files(test: &Test<'_>) -> Result<()> {
    let tour = fs::read(paths::guest("tour")?)?;
    let image = test.built("beside-files", |reference, output| {
        Image::new(&["/tour.wasm"])
            .files(&[
                Entry::Dir("etc"),
                Entry::File("etc/note", 0o644, b"a note\n"),
            ])?
            .wasm(TYPES[2], Some("tour.wasm"), tour)
            .files(&[Entry::File("etc/second", 0o644, b"another\n")])?
            .write(reference, false, output)
    })?;
    for (path, text) in [("/etc/note", "a note\n"), ("/etc/second", "another\n")] {
        let ended = test.run(&image).args(&["/tour.wasm", "read", path]).ctr()?;
        ensure!(
            ended.code == 0 && ended.out() == text,
            "{path}: {ended:?}\n{}",
            ended.err()
        );
    }
    Ok(())
}

fn two(test: &Test<'_>, name: &str, start: &str, titles: [Option<&str>; 2]) -> Result<String> {
    let module = fs::read(paths::guest("hello-module")?)?;
    let hello = hello()?;
    test.built(name, |reference, output| {
        Image::new(&[start])
            .wasm(TYPES[1], titles[0], module)
            .wasm(TYPES[1], titles[1], hello)
            .write(reference, false, output)
    })
}

fn by_title(test: &Test<'_>) -> Result<()> {
    let titles = [Some("module.wasm"), Some("component.wasm")];
    let image = two(test, "by-title", "/component.wasm", titles)?;
    says_hello(test, &image)?;
    let image = two(test, "by-title-module", "module.wasm", titles)?;
    let ended = test.run(&image).ctr()?;
    ensure!(
        ended.out() == "hello from a core module\n",
        "{ended:?}\n{}",
        ended.err()
    );
    Ok(())
}

fn ambiguous(test: &Test<'_>) -> Result<()> {
    let titles = [Some("module.wasm"), Some("component.wasm")];
    let image = two(test, "ambiguous", "/other.wasm", titles)?;
    let ended = test.run(&image).ctr()?;
    let err = ended.err();
    ensure!(
        ended.code != 0 && ended.stdout.is_empty(),
        "it ran: {ended:?}"
    );
    for word in ["other.wasm", "module.wasm", "component.wasm"] {
        ensure!(err.contains(word), "no {word} in {err}");
    }
    Ok(())
}

fn file_first(test: &Test<'_>) -> Result<()> {
    let module = fs::read(paths::guest("hello-module")?)?;
    let hello = hello()?;
    let image = test.built("file-first", |reference, output| {
        Image::new(&["/app.wasm"])
            .files(&[Entry::File("app.wasm", 0o755, &hello)])?
            .wasm(TYPES[0], Some("app.wasm"), module)
            .write(reference, false, output)
    })?;
    says_hello(test, &image)
}

fn tampered(test: &Test<'_>) -> Result<()> {
    // Bytes that no other test has: an ignored section at the end, named so.
    let mut wasm = hello()?;
    let name = format!("tampered-{}", test.namespace());
    let length = u8::try_from(name.len())?;
    wasm.extend([0, length + 1, length]);
    wasm.extend(name.as_bytes());
    let digest = oci::digest(&wasm);
    let tar = test.dir().join("tampered.tar");
    let reference = "localhost/wisp/tampered:test";
    Image::new(&["/hello.wasm"])
        .wasm(TYPES[0], None, wasm)
        .write(reference, false, &tar)?;
    test.import(&tar)?;

    let blob = test
        .node
        .root()
        .join("io.containerd.content.v1.content/blobs/sha256")
        .join(digest.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob).with_context(|| blob.display().to_string())?;
    let last = bytes.last_mut().context("an empty blob")?;
    *last ^= 1;
    fs::write(&blob, bytes)?;
    let ended = test.run(reference).ctr()?;
    ensure!(
        ended.code != 0 && ended.stdout.is_empty(),
        "it ran: {ended:?}"
    );
    ensure!(ended.err().contains(&digest), "{}", ended.err());
    Ok(())
}
