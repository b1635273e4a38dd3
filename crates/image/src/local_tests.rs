use std::io::Write;

use super::*;
use crate::pack::{Config, LayerType, Pack, Platform, Shape};
use tar::{Builder, Header};
use tempfile::TempDir;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// What there is in an image: its name, and each program's path and bytes.
type Found = Vec<(String, Vec<(String, Vec<u8>)>)>;

fn programs(path: &Path) -> Result<Found, ImageError> {
    let images = LocalImages::open(path)?.expect("images");
    let read = |program: ImageProgram| match program {
        ImageProgram::File { path, mut file } => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("read");
            (path, bytes)
        }
        ImageProgram::Layer(layer) => panic!("{layer:?}"),
    };
    let found = images.programs()?.into_iter();
    Ok(found
        .map(|(name, programs)| (name, programs.into_iter().map(read).collect()))
        .collect())
}

fn one(name: &str, path: &str) -> Found {
    vec![(name.into(), vec![(path.into(), MODULE.to_vec())])]
}

/// An archive as `wisp pack` makes it.
fn packed(dir: &TempDir, shape: Shape) -> PathBuf {
    let program = dir.path().join("app.wasm");
    std::fs::write(&program, MODULE).expect("write");
    let pack = Pack {
        reference: "example.com/app:1".into(),
        programs: vec![(program, Platform::host())],
        shape,
        add: Vec::new(),
        config: Config::default(),
    };
    let mut bytes = Vec::new();
    pack.write(&mut bytes).expect("packed");
    let path = dir.path().join("image.tar");
    std::fs::write(&path, bytes).expect("write");
    path
}

fn unpacked(archive: &Path, dir: &TempDir) -> PathBuf {
    let folder = dir.path().join("layout");
    let file = File::open(archive).expect("open");
    Archive::new(file).unpack(&folder).expect("unpack");
    folder
}

fn tar(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, bytes) in parts {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).expect("append");
    }
    tar.into_inner().expect("tar")
}

#[test]
fn archives_and_folders_with_a_layout_are_read() {
    for (shape, path) in [
        (Shape::Plain, "/app.wasm"),
        (Shape::Artifact(LayerType::Auto), "app.wasm"),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let archive = packed(&dir, shape);
        let expected = one("example.com/app:1", path);
        assert_eq!(programs(&archive).expect("archive"), expected);
        assert_eq!(
            programs(&unpacked(&archive, &dir)).expect("folder"),
            expected
        );
        let compressed = dir.path().join("image.tar.gz");
        let file = File::create(&compressed).expect("create");
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let bytes = std::fs::read(&archive).expect("read");
        encoder.write_all(&bytes).expect("write");
        encoder.finish().expect("finish");
        assert_eq!(programs(&compressed).expect("compressed"), expected);
    }
}

#[test]
fn what_docker_saves_is_read() {
    let layer = tar(&[("bin/app.wasm", MODULE)]);
    let config = br#"{"config":{"Entrypoint":["app.wasm"],"Env":["PATH=/bin"],"Cmd":null}}"#;
    let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l/layer.tar"]},
        {"Config":"c.json","RepoTags":null,"Layers":null}]"#;
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("saved.tar");
    let parts: [(&str, &[u8]); 3] = [
        ("manifest.json", manifest),
        ("c.json", config),
        ("l/layer.tar", &layer),
    ];
    std::fs::write(&path, tar(&parts)).expect("write");
    let mut expected = one("app:1", "/bin/app.wasm");
    expected.push(("c.json".into(), Vec::new()));
    assert_eq!(programs(&path).expect("saved"), expected);
}

#[test]
fn what_is_no_image_is_none() {
    let dir = tempfile::tempdir().expect("dir");
    for (name, bytes) in [
        ("module", MODULE.to_vec()),
        ("empty", Vec::new()),
        ("tar", tar(&[("file", b"x")])),
        ("short", b"ustar".to_vec()),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        assert!(
            LocalImages::open(&path).expect("readable").is_none(),
            "{name}"
        );
    }
    let wrong = programs(dir.path()).expect_err("no layout").to_string();
    assert!(wrong.contains("index.json"), "{wrong}");
    assert!(LocalImages::open(Path::new("/no/such/file")).is_err());
}

#[test]
fn a_changed_blob_and_a_digest_that_leads_out_are_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let folder = unpacked(&packed(&dir, Shape::Artifact(LayerType::Auto)), &dir);
    let blobs = folder.join("blobs/sha256");
    for entry in std::fs::read_dir(&blobs).expect("blobs") {
        let path = entry.expect("entry").path();
        let kept = std::fs::read(&path).expect("read");
        let mut changed = kept.clone();
        changed.push(b' ');
        std::fs::write(&path, changed).expect("write");
        let wrong = programs(&folder).map_err(|error| error.to_string());
        // A configuration is read only if a file may be what is started.
        assert!(
            wrong
                .as_ref()
                .is_err_and(|why| why.contains("its digest is")),
            "{wrong:?}"
        );
        std::fs::write(&path, kept).expect("write");
    }
    std::fs::write(dir.path().join("outside"), b"{}").expect("write");
    for digest in [
        "sha256:../../../outside",
        "../outside",
        "sha256:",
        "/etc/passwd",
    ] {
        let entry = format!(
            r#"{{"manifests":[{{"mediaType":"{}","digest":"{digest}","size":2}}]}}"#,
            media::MANIFEST
        );
        std::fs::write(folder.join(INDEX), entry).expect("write");
        let wrong = programs(&folder).expect_err(digest).to_string();
        assert!(wrong.contains("is no digest"), "{digest}: {wrong}");
    }
}

#[test]
fn nonsense_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("x.tar");
    for text in ["", "7", r#"{"manifests":7}"#, r#"{"manifests":[{}]}"#] {
        std::fs::write(&path, tar(&[("index.json", text.as_bytes())])).expect("write");
        assert!(programs(&path).is_err(), "{text}");
    }
    let whole = std::fs::read(packed(&dir, Shape::Plain)).expect("read");
    for end in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..end]).expect("write");
        if let Ok(Some(images)) = LocalImages::open(&path) {
            let _ = images.programs();
        }
    }
}
