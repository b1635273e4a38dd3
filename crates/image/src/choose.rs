//! Which bytes are the program.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use crate::error::ImageError;
use crate::format::{Format, HEAD};
use crate::layers::WasmLayer;
use crate::rootfs::{Found, Rootfs};

/// Where a bare name is looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container runs.
#[derive(Debug)]
pub enum Program {
    /// A Wasm file in the root file system, open at its beginning.
    RootfsWasm { file: File, path: String },
    /// A layer of the image that is a Wasm file.
    LayerWasm(WasmLayer),
    /// A program or script for the host's kernel.
    Native,
}

/// Finds the program of a container with these `args`, whose environment has
/// `PATH` set to `env_path` and which starts in `cwd`.
///
/// A file that `args[0]` names comes first, be it Wasm or native; `layers` are
/// asked for only if there is none.
///
/// # Errors
/// What was looked for and where; or what was found instead of a program.
pub fn choose(
    args: &[String],
    env_path: Option<&str>,
    cwd: &str,
    rootfs: &Rootfs,
    layers: &mut dyn FnMut() -> Result<Vec<WasmLayer>, ImageError>,
) -> Result<Program, ImageError> {
    let arg = args
        .first()
        .filter(|arg| !arg.is_empty())
        .ok_or(ImageError::NoArgs)?;
    let places = candidates(arg, env_path, cwd);
    // A file that is there but no program. A layer may still be one; else it
    // says more than "not found".
    let mut disappointed = None;
    for path in &places {
        match look(path, rootfs) {
            Ok(None) => {}
            Ok(Some(Looked::Program(program))) => return Ok(program),
            Ok(Some(Looked::Other(error))) => {
                disappointed.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let mut layers = layers()?;
    match (pick(arg, &layers), disappointed) {
        (Some(at), _) => Ok(Program::LayerWasm(layers.swap_remove(at))),
        (None, Some(error)) => Err(error),
        (None, None) if layers.is_empty() => Err(not_found(arg, &places)),
        (None, None) => Err(ImageError::WhichLayer {
            arg: arg.clone(),
            count: layers.len(),
            titles: titles(&layers),
        }),
    }
}

/// What is at a path.
enum Looked {
    Program(Program),
    Other(ImageError),
}

/// The paths that `arg` may mean, as `execvp` has it; a name without a slash
/// may also be a file in the working directory.
pub(crate) fn candidates(arg: &str, env_path: Option<&str>, cwd: &str) -> Vec<PathBuf> {
    let cwd = Path::new("/").join(cwd);
    if arg.contains('/') {
        return vec![cwd.join(arg)];
    }
    let path = env_path
        .filter(|path| !path.is_empty())
        .unwrap_or(DEFAULT_PATH);
    let mut places: Vec<PathBuf> = path.split(':').map(|dir| cwd.join(dir).join(arg)).collect();
    places.push(cwd.join(arg));
    places
}

fn look(path: &Path, rootfs: &Rootfs) -> Result<Option<Looked>, ImageError> {
    let failed = |what| {
        move |reason| ImageError::File {
            what,
            path: path.display().to_string(),
            reason,
        }
    };
    let Some(found) = rootfs.find(path).map_err(failed("look for"))? else {
        return Ok(None);
    };
    let name = path.display().to_string();
    let other = |is| {
        Ok(Some(Looked::Other(ImageError::NotAProgram {
            path: name.clone(),
            is,
        })))
    };
    if found.is_dir() {
        return other("is a directory, not a program");
    }
    if !found.is_file() {
        return other("is not a regular file");
    }
    let mut file = found.open().map_err(failed("open"))?;
    let mut head = Vec::with_capacity(HEAD);
    Read::take(&file, HEAD as u64)
        .read_to_end(&mut head)
        .map_err(failed("read"))?;
    match Format::of(&head) {
        Format::Module | Format::Component => {
            file.rewind().map_err(failed("read"))?;
            Ok(Some(Looked::Program(Program::RootfsWasm {
                file,
                path: name,
            })))
        }
        Format::Precompiled => Err(ImageError::Precompiled { path: name }),
        Format::Elf | Format::Script => native(&found, &name),
        Format::Truncated => other("is truncated: it ends within the WebAssembly header"),
        Format::UnknownWasm => other("is WebAssembly of a version that wisp does not know"),
        Format::Other if path.extension().is_some_and(|e| e == "cwasm") => {
            Err(ImageError::Precompiled { path: name })
        }
        Format::Other if head.is_empty() => other("is empty"),
        Format::Other => other(
            "is neither WebAssembly nor a native program: it begins with none of \"\\0asm\", \
             \"\\x7fELF\" and \"#!\"",
        ),
    }
}

fn native(found: &Found, path: &str) -> Result<Option<Looked>, ImageError> {
    Ok(Some(if found.is_executable() {
        Looked::Program(Program::Native)
    } else {
        Looked::Other(ImageError::NotAProgram {
            path: path.into(),
            is: "is a native program that nobody may execute: set its mode, like 0755",
        })
    }))
}

/// The layer that `arg` means: the one with that title, else the only one.
fn pick(arg: &str, layers: &[WasmLayer]) -> Option<usize> {
    let file_name = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let titled = |same: &dyn Fn(&str) -> bool| {
        let mut fitting = layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| layer.title.as_deref().is_some_and(same));
        match (fitting.next(), fitting.next()) {
            (Some((at, _)), None) => Some(at),
            _ => None,
        }
    };
    let path = |text: &str| {
        text.trim_start_matches("./")
            .trim_start_matches('/')
            .to_owned()
    };
    titled(&|title| path(title) == path(arg))
        .or_else(|| titled(&|title| file_name(title) == file_name(arg)))
        .or((layers.len() == 1).then_some(0))
}

fn titles(layers: &[WasmLayer]) -> String {
    layers
        .iter()
        .map(|layer| layer.title.as_deref().unwrap_or(&layer.digest))
        .collect::<Vec<_>>()
        .join(", ")
}

fn not_found(arg: &str, places: &[PathBuf]) -> ImageError {
    ImageError::NotFound {
        arg: arg.into(),
        places: places
            .iter()
            .map(|place| place.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
