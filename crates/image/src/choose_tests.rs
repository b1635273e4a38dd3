use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const ELF: &[u8] = b"\x7fELF\x02\x01\x01\0";
const PRECOMPILED: &[u8] = b"\x7fELF\x02\x01\x01\xc8";

/// A root file system with something outside of it.
struct Image {
    dir: TempDir,
    layers: Vec<WasmLayer>,
}

impl Image {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("rootfs/bin")).expect("a directory");
        Self {
            dir,
            layers: Vec::new(),
        }
    }

    fn file(self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        let path = self.dir.path().join("rootfs").join(path);
        fs::write(&path, bytes).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        self
    }

    fn outside(self, path: &str, bytes: &[u8]) -> Self {
        fs::write(self.dir.path().join(path), bytes).expect("a file");
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        symlink(target, self.dir.path().join("rootfs").join(path)).expect("a link");
        self
    }

    fn layer(mut self, title: Option<&str>) -> Self {
        self.layers.push(WasmLayer::example(title));
        self
    }

    fn choose(&self, arg: &str) -> Result<Program, String> {
        self.choose_in(arg, None, "/")
    }

    fn choose_in(&self, arg: &str, path: Option<&str>, cwd: &str) -> Result<Program, String> {
        let rootfs = Rootfs::open(&self.dir.path().join("rootfs")).expect("a rootfs");
        let args = [arg.to_owned(), "more".to_owned()];
        choose(&args, path, cwd, &rootfs, &mut || Ok(self.layers.clone()))
            .map_err(|error| error.to_string())
    }

    fn error(&self, arg: &str) -> String {
        self.choose(arg).expect_err("no program")
    }
}

fn path(program: Result<Program, String>) -> String {
    match program {
        Ok(Program::RootfsWasm { mut file, path }) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("readable");
            assert_eq!(bytes, MODULE, "open at its beginning");
            path
        }
        other => panic!("{other:?}"),
    }
}

fn title(program: Result<Program, String>) -> Option<String> {
    match program {
        Ok(Program::LayerWasm(layer)) => layer.title,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wasm_file_is_found_by_path_working_directory_and_search_path() {
    let image = Image::new()
        .file("app.wasm", 0o644, MODULE)
        .file("bin/tool", 0o644, MODULE);
    assert_eq!(path(image.choose("/app.wasm")), "/app.wasm");
    assert_eq!(path(image.choose("app.wasm")), "/app.wasm");
    assert_eq!(path(image.choose("./app.wasm")), "/./app.wasm");
    assert_eq!(path(image.choose("tool")), "/bin/tool");
    let there = image.choose_in("tool", Some("/nowhere"), "/bin");
    assert_eq!(path(there), "/bin/tool");
    let above = image.choose_in("../app.wasm", None, "/bin");
    assert_eq!(path(above), "/bin/../app.wasm");
}

#[test]
fn native_programs_and_scripts_are_native_even_beside_wasm_layers() {
    let image = Image::new()
        .file("bin/sh", 0o755, ELF)
        .file("bin/script", 0o755, b"#!/bin/sh\n")
        .layer(Some("app.wasm"));
    assert!(matches!(image.choose("sh"), Ok(Program::Native)));
    assert!(matches!(image.choose("/bin/script"), Ok(Program::Native)));
}

#[test]
fn layers_are_not_asked_for_when_a_file_is_the_program() {
    let image = Image::new().file("app.wasm", 0o644, MODULE);
    let rootfs = Rootfs::open(&image.dir.path().join("rootfs")).expect("a rootfs");
    let mut asked = || panic!("asked");
    let args = ["/app.wasm".to_owned()];
    assert!(choose(&args, None, "/", &rootfs, &mut asked).is_ok());
}

#[test]
fn a_layer_is_found_by_its_title_or_by_being_the_only_one() {
    let one = Image::new().layer(Some("a.wasm"));
    assert_eq!(title(one.choose("/whatever")).as_deref(), Some("a.wasm"));
    assert_eq!(title(Image::new().layer(None).choose("/x")), None);
    let two = Image::new()
        .layer(Some("a.wasm"))
        .layer(None)
        .layer(Some("dir/b.wasm"));
    assert_eq!(title(two.choose("/a.wasm")).as_deref(), Some("a.wasm"));
    assert_eq!(title(two.choose("b.wasm")).as_deref(), Some("dir/b.wasm"));
    let error = two.error("/c.wasm");
    assert!(error.contains("c.wasm"), "{error}");
    assert!(error.contains("a.wasm, sha256:None, dir/b.wasm"), "{error}");
}

#[test]
fn two_layers_of_one_title_are_not_guessed_between() {
    let image = Image::new().layer(Some("a.wasm")).layer(Some("a.wasm"));
    assert!(image.error("a.wasm").contains("2 Wasm layers"));
}

#[test]
fn what_is_missing_is_said_with_all_places() {
    let error = Image::new().error("app.wasm");
    assert!(error.contains("/usr/bin/app.wasm"), "{error}");
    assert!(error.contains("/app.wasm"), "{error}");
    assert!(error.contains("Wasm layers"), "{error}");
}

#[test]
fn links_stay_in_the_image() {
    let image = Image::new()
        .outside("host.wasm", MODULE)
        .file("app.wasm", 0o644, MODULE)
        .link("up.wasm", "../host.wasm")
        .link("absolute.wasm", "/app.wasm")
        .link("loop.wasm", "loop.wasm")
        .link("proc.wasm", "/proc/self/exe");
    assert!(image.error("/up.wasm").contains("not in the image"));
    assert!(image.error("/../host.wasm").contains("not in the image"));
    assert!(image.error("/proc.wasm").contains("not in the image"));
    assert!(image.error("/loop.wasm").contains("/loop.wasm"));
    assert_eq!(path(image.choose("/absolute.wasm")), "/absolute.wasm");
}

#[test]
fn what_is_no_program_is_called_by_its_name() {
    let image = Image::new()
        .file("text", 0o755, b"hello")
        .file("empty", 0o755, b"")
        .file("cut.wasm", 0o755, b"\0asm\x01")
        .file("new.wasm", 0o755, b"\0asm\x09\0\0\0")
        .file("elf", 0o644, ELF)
        .file("code", 0o755, PRECOMPILED)
        .file("old.cwasm", 0o755, b"????????");
    for (arg, why) in [
        ("/text", "neither WebAssembly nor"),
        ("/empty", "is empty"),
        ("/cut.wasm", "truncated"),
        ("/new.wasm", "version"),
        ("/elf", "mode"),
        ("/code", "precompiled"),
        ("/old.cwasm", "precompiled"),
        ("/bin", "directory"),
    ] {
        let error = image.error(arg);
        assert!(error.contains(why) && error.contains(arg), "{error}");
    }
}

#[test]
fn precompiled_code_is_refused_even_beside_a_layer() {
    let image = Image::new()
        .file("code", 0o755, PRECOMPILED)
        .layer(Some("code"));
    assert!(image.error("/code").contains("precompiled"));
}

#[test]
fn a_fifo_is_not_opened() {
    let image = Image::new();
    let fifo = image.dir.path().join("rootfs/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert!(image.error("/fifo").contains("regular file"));
}

#[test]
fn no_args_are_an_error() {
    let image = Image::new().layer(None);
    assert!(image.error("").contains("args"));
    let rootfs = Rootfs::open(image.dir.path()).expect("a rootfs");
    let error = choose(&[], None, "/", &rootfs, &mut || Ok(Vec::new())).expect_err("no args");
    assert!(error.to_string().contains("args"));
}
