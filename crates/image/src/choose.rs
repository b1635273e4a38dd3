//! Which bytes are a container's program.
//!
//! In this order: the first argument names a Wasm file in the root file
//! system; the image has Wasm layers; the first argument names a native
//! program. Anything else is an error that says what was looked for.

use std::fs::File;
use std::path::Path;

use crate::content::WasmLayer;
use crate::error::ImageError;
use crate::format::Format;
use crate::rootfs::{Found, Rootfs, candidates};

/// A container's program.
#[derive(Debug)]
pub enum Program {
    /// A Wasm file in the root file system.
    RootfsWasm {
        /// Open for reading, at its beginning.
        file: File,
        /// Its path in the container.
        path: String,
    },
    /// A Wasm layer of the image.
    LayerWasm(WasmLayer),
    /// A program for the kernel to execute, found there as `args[0]` says.
    Native,
}

/// Chooses the program of a container with these arguments. `path` is its
/// `PATH`, `cwd` its working directory; `layers` is asked at most once, and
/// only if the root file system has no Wasm file of that name.
///
/// # Errors
/// When there is no such program or it is of no use, with what was found.
pub fn choose(
    args: &[String],
    path: Option<&str>,
    cwd: &str,
    rootfs: &Rootfs,
    layers: &mut dyn FnMut() -> Result<Vec<WasmLayer>, ImageError>,
) -> Result<Program, ImageError> {
    let program = args
        .first()
        .filter(|program| !program.is_empty())
        .ok_or(ImageError::NoArgs)?;
    let places = candidates(program, path, cwd);
    let found = find(rootfs, &places)?;
    if let Some((at, found)) = found {
        return match found.format {
            Format::Module | Format::Component => Ok(Program::RootfsWasm {
                file: found.file,
                path: at,
            }),
            Format::Elf | Format::Script => match pick(program, layers()?)? {
                Some(layer) => Ok(Program::LayerWasm(layer)),
                None if found.executable => Ok(Program::Native),
                None => Err(not_runnable(&at, "not executable; set its mode, as chmod +x does")),
            },
            other => Err(not_runnable(&at, reason(other))),
        };
    }
    match pick(program, layers()?)? {
        Some(layer) => Ok(Program::LayerWasm(layer)),
        None => Err(ImageError::NotFound {
            program: program.clone(),
            looked: format!(
                "the image's root file system has none of {}, and the image has no Wasm layer",
                places
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }),
    }
}

fn find(
    rootfs: &Rootfs,
    places: &[std::path::PathBuf],
) -> Result<Option<(String, Found)>, ImageError> {
    for place in places {
        match rootfs.file(place) {
            Ok(Some(found)) => return Ok(Some((place.display().to_string(), found))),
            Ok(None) => {}
            // A directory of that name hides nothing further along PATH.
            Err(ImageError::NotRunnable { .. }) if places.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The layer that `program` names by its title (with or without a leading
/// path), else the only one.
fn pick(program: &str, mut layers: Vec<WasmLayer>) -> Result<Option<WasmLayer>, ImageError> {
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    let named = |layer: &WasmLayer, wanted: &str| {
        layer
            .title
            .as_deref()
            .is_some_and(|title| title == wanted || title.trim_start_matches('/') == wanted)
    };
    let exact = program.trim_start_matches("./").trim_start_matches('/');
    let by_name = layers
        .iter()
        .position(|layer| named(layer, exact))
        .or_else(|| layers.iter().position(|layer| name.is_some_and(|n| named(layer, n))));
    match (by_name, layers.len()) {
        (Some(index), _) => Ok(Some(layers.swap_remove(index))),
        (None, 0 | 1) => Ok(layers.pop()),
        (None, _) => Err(ImageError::Ambiguous {
            program: program.to_owned(),
            titles: layers
                .iter()
                .map(|layer| layer.title.clone().unwrap_or_else(|| layer.digest.clone()))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

fn not_runnable(path: &str, reason: &str) -> ImageError {
    ImageError::NotRunnable {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn reason(format: Format) -> &'static str {
    match format {
        Format::Precompiled => {
            "precompiled code is refused, because it is native code that no sandbox confines; \
             put the Wasm module or component itself into the image"
        }
        Format::Truncated => "truncated: a Wasm file begins here and ends too early",
        Format::UnknownWasm => {
            "a Wasm file of an unknown version; core modules of version 1 and components are known"
        }
        _ => "neither Wasm nor a native program (ELF or #! script)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Image(tempfile::TempDir);

    impl Image {
        fn with(files: &[(&str, &[u8])]) -> Self {
            let dir = tempfile::tempdir().expect("temp dir");
            for (name, bytes) in files {
                let path = dir.path().join(name);
                fs::write(&path, bytes).expect("write");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
            }
            Self(dir)
        }

        fn choose(&self, program: &str, titles: &[&str]) -> Result<Program, ImageError> {
            let rootfs = Rootfs::open(self.0.path()).expect("rootfs");
            let mut layers = || Ok(titles.iter().map(|title| WasmLayer::titled(title)).collect());
            choose(&[program.to_owned()], Some("/bin"), "/", &rootfs, &mut layers)
        }
    }

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn a_wasm_file_comes_before_layers() {
        let image = Image::with(&[("app.wasm", MODULE)]);
        for program in ["/app.wasm", "app.wasm", "./app.wasm"] {
            let chosen = image.choose(program, &["app.wasm"]).expect(program);
            assert!(matches!(chosen, Program::RootfsWasm { .. }), "{chosen:?}");
        }
    }

    #[test]
    fn a_layer_comes_before_a_native_program() {
        let image = Image::with(&[("server", b"\x7fELF\x02\x01\x01\0")]);
        let chosen = image.choose("/server", &["server.wasm"]).expect("layer");
        assert!(matches!(chosen, Program::LayerWasm(_)), "{chosen:?}");
        let chosen = image.choose("/server", &[]).expect("native");
        assert!(matches!(chosen, Program::Native), "{chosen:?}");
    }

    #[test]
    fn among_layers_the_title_decides() {
        let image = Image::with(&[]);
        for program in ["b.wasm", "/b.wasm", "/opt/b.wasm"] {
            match image.choose(program, &["a.wasm", "b.wasm"]).expect(program) {
                Program::LayerWasm(layer) => assert_eq!(layer.title.as_deref(), Some("b.wasm")),
                other => panic!("{other:?}"),
            }
        }
        let error = image.choose("c", &["a.wasm", "b.wasm"]).expect_err("two");
        assert!(error.to_string().contains("a.wasm, b.wasm"), "{error}");
    }

    #[test]
    fn precompiled_code_is_refused_by_name() {
        let image = Image::with(&[("app.cwasm", b"\x7fELF\x02\x01\x01\xc8")]);
        let error = image.choose("/app.cwasm", &[]).expect_err("refused");
        assert!(error.to_string().contains("precompiled"), "{error}");
    }

    #[test]
    fn what_is_missing_says_where_it_was_looked_for() {
        let image = Image::with(&[("note.txt", b"hello")]);
        let error = image.choose("nope", &[]).expect_err("missing").to_string();
        assert!(error.contains("/nope, /bin/nope"), "{error}");
        let error = image.choose("/note.txt", &[]).expect_err("text").to_string();
        assert!(error.contains("neither Wasm"), "{error}");
        assert!(matches!(image.choose("", &[]), Err(ImageError::NoArgs)));
    }
}
