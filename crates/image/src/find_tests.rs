use super::*;
use std::io::Write;
use tar::{Builder, Header};

/// An entry: a file, a directory or a link.
enum What {
    File(&'static str),
    Dir,
    Link(&'static str),
    Hard(&'static str),
}
use What::{Dir, Hard, Link};

fn layer(entries: &[(&str, What)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, what) in entries {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        match what {
            What::File(content) => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes())
            }
            Dir => {
                header.set_entry_type(EntryType::Directory);
                tar.append_data(&mut header, name, io::empty())
            }
            Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, name, target)
            }
            Hard(target) => {
                header.set_entry_type(EntryType::Link);
                tar.append_link(&mut header, name, target)
            }
        }
        .expect("append");
    }
    tar.into_inner().expect("tar")
}

fn look(path: &str, layers: &[Vec<u8>]) -> io::Result<Option<String>> {
    let mut open = |at: usize| Ok(Box::new(io::Cursor::new(layers[at].clone())) as Box<dyn Read>);
    let found = find(Path::new(path), layers.len(), &mut open)?;
    found.map(io::read_to_string).transpose()
}

fn finds(path: &str, layers: &[Vec<u8>]) -> Option<String> {
    look(path, layers).expect("readable")
}

fn file(name: &str, content: &'static str) -> Vec<u8> {
    layer(&[(name, What::File(content))])
}

#[test]
fn a_file_is_found_by_any_spelling_of_its_path() {
    let layers = [file("bin/app.wasm", "wasm")];
    for path in [
        "/bin/app.wasm",
        "bin/app.wasm",
        "/./bin//app.wasm",
        "/x/../bin/app.wasm",
    ] {
        assert_eq!(finds(path, &layers).as_deref(), Some("wasm"), "{path}");
    }
    for path in ["/app.wasm", "/bin", "/", "/bin/app.wasm/x"] {
        assert_eq!(finds(path, &layers), None, "{path}");
    }
}

#[test]
fn the_uppermost_layer_counts() {
    let layers = [file("a", "lower"), file("./a", "upper"), file("b", "")];
    assert_eq!(finds("/a", &layers).as_deref(), Some("upper"));
}

#[test]
fn what_a_layer_removes_is_gone() {
    for entry in [
        ".wh.a",
        "a/.wh.b",
        "a/b/.wh.c",
        ".wh..wh..opq",
        "a/.wh..wh..opq",
        "a",
        "a/b",
    ] {
        let layers = [file("a/b/c", "lower"), file(entry, "")];
        assert_eq!(finds("/a/b/c", &layers), None, "{entry}");
    }
    for entry in [".wh.b", "a/.wh.c", "b/.wh..wh..opq", "a/b/.wh.cc", "a/bc"] {
        let layers = [file("a/b/c", "lower"), file(entry, "")];
        assert_eq!(
            finds("/a/b/c", &layers).as_deref(),
            Some("lower"),
            "{entry}"
        );
    }
    // It concerns the layers below, not its own.
    let own = layer(&[
        ("a/c", What::File("own")),
        ("a/.wh..wh..opq", What::File("")),
    ]);
    let layers = [file("a/c", "lower"), own];
    assert_eq!(finds("/a/c", &layers).as_deref(), Some("own"));
}

#[test]
fn links_are_followed_inside_the_image() {
    let layers = [
        layer(&[("real", Dir), ("real/app.wasm", What::File("wasm"))]),
        layer(&[
            ("dir", Link("real")),
            ("up/dir", Link("../real")),
            ("app", Link("/dir/app.wasm")),
            ("out", Link("../../../real/app.wasm")),
            ("hard", Hard("real/app.wasm")),
            ("dangling", Link("nowhere")),
        ]),
    ];
    for path in ["/dir/app.wasm", "/up/dir/app.wasm", "/app", "/out", "/hard"] {
        assert_eq!(finds(path, &layers).as_deref(), Some("wasm"), "{path}");
    }
    assert_eq!(finds("/dangling", &layers), None);
}

#[test]
fn links_without_end_are_an_error() {
    let layers = [layer(&[("a", Link("b")), ("b", Link("a"))])];
    let error = look("/a", &layers).expect_err("endless").to_string();
    assert!(error.contains("links"), "{error}");
}

#[test]
fn compressed_layers_are_read() {
    let tar = file("a", "content");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("compress");
    let zstd = ruzstd::encoding::compress_to_vec(
        tar.as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    for layer in [gzip.finish().expect("compress"), zstd] {
        assert_eq!(finds("/a", &[layer]).as_deref(), Some("content"));
    }
}

#[test]
fn damaged_layers_are_errors() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&file("a", "content")).expect("compress");
    let mut gzip = gzip.finish().expect("compress");
    gzip.truncate(40);
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd];
    zstd.extend([0xff; 20]);
    for layer in [gzip, zstd, vec![7; 4000], b"abc".to_vec()] {
        assert!(look("/a", &[layer]).is_err());
    }
    assert_eq!(finds("/a", &[Vec::new()]), None);
}
