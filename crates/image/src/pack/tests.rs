use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A directory with a program and files to be packed.
fn input() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |path: &str| dir.path().join(path);
    fs::create_dir_all(at("assets/sub")).expect("a directory");
    for (path, bytes) in [
        ("app.wasm", MODULE),
        ("component.wasm", COMPONENT),
        ("assets/b", b"bee"),
        ("assets/sub/a", b"ay"),
    ] {
        fs::write(at(path), bytes).expect("a file");
    }
    fs::set_permissions(at("assets/b"), fs::Permissions::from_mode(0o700)).expect("a mode");
    symlink("../b", at("assets/sub/link")).expect("a link");
    dir
}

fn request(dir: &TempDir, program: &str) -> Pack {
    Pack {
        reference: "example.com/app:1".into(),
        programs: vec![(dir.path().join(program), Platform::host())],
        shape: Shape::Plain,
        add: Vec::new(),
        config: Config::default(),
    }
}

fn addition(dir: &TempDir, source: &str, destination: &str) -> Addition {
    let source = dir.path().join(source);
    format!("{}:{destination}", source.display())
        .parse()
        .expect("an addition")
}

/// The files of an archive by name.
type Archive = BTreeMap<String, Vec<u8>>;

fn packed(pack: &Pack) -> Archive {
    let mut bytes = Vec::new();
    pack.write(&mut bytes).expect("packed");
    untar(&bytes)
}

fn untar(bytes: &[u8]) -> Archive {
    tar::Archive::new(bytes)
        .entries()
        .expect("a tar")
        .map(|entry| {
            let mut entry = entry.expect("an entry");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            let header = entry.header();
            assert_eq!(header.mtime().ok(), Some(0));
            assert_eq!((header.uid().ok(), header.gid().ok()), (Some(0), Some(0)));
            let mut path = entry.path().expect("a path").display().to_string();
            if let Some(target) = entry.link_name().expect("a link") {
                path = format!("{path} -> {}", target.display());
            }
            (
                format!("{:o} {path}", entry.header().mode().expect("a mode")),
                content,
            )
        })
        .collect()
}

fn document(archive: &Archive, path: &str) -> Value {
    let bytes = archive.get(&format!("644 {path}")).expect(path);
    serde_json::from_slice(bytes).expect(path)
}

fn blob(archive: &Archive, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().expect("a digest");
    document(archive, &archive::path_of(digest))
}

fn layer(archive: &Archive, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest");
    archive[&format!("644 {}", archive::path_of(digest))].clone()
}

fn error(pack: &Pack) -> String {
    let mut bytes = Vec::new();
    pack.write(&mut bytes).expect_err("refused").to_string()
}

#[test]
fn a_plain_image_has_its_program_and_files_in_one_layer() {
    let dir = input();
    let mut pack = request(&dir, "app.wasm");
    pack.add.push(addition(&dir, "assets", "/srv/www"));
    pack.add.push(addition(&dir, "assets/b", "/etc/"));
    let archive = packed(&pack);
    let target = document(&archive, "index.json")["manifests"][0].clone();
    for name in [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ] {
        assert_eq!(target["annotations"][name], "example.com/app:1");
    }
    let manifest = blob(&archive, &target);
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1);
    let files = untar(&layer(&archive, &layers[0]));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "644 srv/www/sub/a",
            "755 app.wasm",
            "755 etc/",
            "755 etc/b",
            "755 srv/",
            "755 srv/www/",
            "755 srv/www/b",
            "755 srv/www/sub/",
            "777 srv/www/sub/link -> ../b",
        ]
    );
    let config = blob(&archive, &manifest["config"]);
    assert_eq!(config["config"]["Entrypoint"], json!(["/app.wasm"]));
    assert_eq!(config["rootfs"]["diff_ids"][0], layers[0]["digest"]);
    let docker = document(&archive, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["example.com/app:1"]));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = input();
    let mut pack = request(&dir, "app.wasm");
    pack.add.push(addition(&dir, "assets", "/"));
    let (mut first, mut second) = (Vec::new(), Vec::new());
    pack.write(&mut first).expect("packed");
    pack.write(&mut second).expect("packed");
    assert!(first == second);
}

#[test]
fn an_artifact_has_a_wasm_layer_that_is_no_diff_id() {
    let dir = input();
    for (program, layer_type, media_type) in [
        ("component.wasm", LayerType::Auto, media::WASM_COMPONENT),
        ("app.wasm", LayerType::Auto, media::WASM_CONTENT),
        ("app.wasm", LayerType::Wasm, media::WASM),
    ] {
        let mut pack = request(&dir, program);
        pack.shape = Shape::Artifact(layer_type);
        pack.add.push(addition(&dir, "assets/b", "/b"));
        let archive = packed(&pack);
        let target = document(&archive, "index.json")["manifests"][0].clone();
        let manifest = blob(&archive, &target);
        let layers = manifest["layers"].as_array().expect("layers");
        assert_eq!(layers[0]["mediaType"], media::TAR);
        assert_eq!(layers[1]["mediaType"], media_type);
        assert_eq!(layers[1]["annotations"][media::TITLE], program);
        let original = fs::read(dir.path().join(program)).expect("the program");
        assert_eq!(layer(&archive, &layers[1]), original);
        let config = blob(&archive, &manifest["config"]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([layers[0]["digest"]]));
        assert!(!archive.contains_key("644 manifest.json"));
    }
}

#[test]
fn several_platforms_make_an_index() {
    let dir = input();
    let mut pack = request(&dir, "app.wasm");
    let wasi: Platform = "wasi/wasm".parse().expect("a platform");
    pack.programs
        .push((dir.path().join("component.wasm"), wasi));
    let archive = packed(&pack);
    let target = document(&archive, "index.json")["manifests"][0].clone();
    assert_eq!(target["mediaType"], media::INDEX);
    let index = blob(&archive, &target);
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(index["manifests"][1]["platform"]["os"], "wasi");
    let config = blob(&archive, &blob(&archive, &index["manifests"][1])["config"]);
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["config"]["Entrypoint"], json!(["/component.wasm"]));
    pack.programs.push(pack.programs[0].clone());
    assert!(error(&pack).contains("stands twice"));
}

#[test]
fn wrong_input_is_refused_by_name() {
    let dir = input();
    for (bytes, why) in [
        (&b""[..], "not WebAssembly"),
        (b"\0asm", "truncated"),
        (b"\x7fELF\x02\x01\x01\xc8", "precompiled"),
        (b"\x7fELF\x02\x01\x01\0", "ELF"),
        (b"#!/bin/sh\n", "script"),
    ] {
        fs::write(dir.path().join("wrong"), bytes).expect("a file");
        let said = error(&request(&dir, "wrong"));
        assert!(said.contains(why) && said.contains("wrong"), "{said}");
    }
    assert!(error(&request(&dir, "missing.wasm")).contains("missing.wasm"));
    assert!(error(&request(&dir, "assets")).contains("not a file"));
    for name in ["", "two words", "tab\t"] {
        let mut pack = request(&dir, "app.wasm");
        pack.reference = name.into();
        assert!(error(&pack).contains("image name"));
    }
    let mut pack = request(&dir, "app.wasm");
    pack.programs.clear();
    assert!(error(&pack).contains("no program"));
}

#[test]
fn what_cannot_be_added_is_refused() {
    let dir = input();
    let added = |source: &str, destination: &str| {
        let mut pack = request(&dir, "app.wasm");
        pack.add.push(addition(&dir, source, destination));
        error(&pack)
    };
    assert!(added("missing", "/x").contains("missing"));
    assert!(added("assets/b", "/app.wasm").contains("stands twice"));
    assert!(added("assets/b", "/app.wasm/b").contains("stands twice"));
    let fifo = dir.path().join("assets/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert!(added("assets", "/x").contains("fifo"));
    fs::remove_file(fifo).expect("removed");
    fs::write(dir.path().join("assets/.wh.b"), b"").expect("a file");
    assert!(added("assets", "/x").contains(".wh."));
}
