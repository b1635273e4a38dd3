//! A guest's code: from its program to code that is mapped and linked.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use wisp_aot::{Artifact, Cache, Compiler, Digest, Memo};
use wisp_capability::Grant;
use wisp_config::Config;
use wisp_engine::{EngineError, Prepared};
use wisp_image::Program;

use super::lower;
use crate::control::{Control, Report, RootfsMount};
use crate::error::ContainerError;

/// A guest's code.
pub struct Code {
    /// Mapped and linked.
    pub prepared: Prepared,
    /// Kept open for as long as the guest runs: that says it is in use.
    pub artifact: Artifact,
}

/// Where the container's files are and come from.
pub struct Root<'a> {
    /// The root directory on the host.
    pub path: &'a Path,
    /// The mounts that made it.
    pub mounts: &'a [RootfsMount],
}

/// Finds or makes the code of `program`, maps and links it. Tells the daemon
/// what is wrong with the cache.
///
/// # Errors
/// A program that cannot be read, compiled or linked.
pub fn load(
    program: Program,
    root: &Root<'_>,
    config: &Config,
    grant: &Grant,
    creator: &Control,
) -> Result<Code, ContainerError> {
    let cache = Cache::from_config(config);
    let compiler = Compiler::from_config(config);
    let (name, digest, mut open) = source(program, root, config)?;
    let warn = |artifact: &Artifact| {
        if let Some(warning) = &artifact.warning {
            creator.report(&Report::Warning(format!("{name}: {warning}")));
        }
    };
    let aot = |source| ContainerError::Aot {
        program: name.clone(),
        source,
    };
    let mut artifact = cache.load(&digest, &mut open, &compiler).map_err(aot)?;
    warn(&artifact);
    creator.step("init: code found");
    let mut prepared = prepare(&artifact, &name, grant)?;
    if let Err(EngineError::Artifact(reason)) = &prepared
        && artifact.cached
    {
        creator.report(&Report::Warning(format!(
            "{name}: its compiled code is refused and made again: {reason}"
        )));
        artifact = cache
            .replace(&artifact, &digest, &mut open, &compiler)
            .map_err(aot)?;
        warn(&artifact);
        prepared = prepare(&artifact, &name, grant)?;
    }
    match prepared {
        Ok(prepared) => {
            creator.step("init: code mapped and linked");
            Ok(Code { prepared, artifact })
        }
        Err(source) => Err(ContainerError::Engine {
            program: name,
            source,
        }),
    }
}

fn prepare(
    artifact: &Artifact,
    name: &str,
    grant: &Grant,
) -> Result<Result<Prepared, EngineError>, ContainerError> {
    let file = artifact.file.try_clone().map_err(|e| {
        ContainerError::Init(format!("{name}: keep the code open while it runs: {e}"))
    })?;
    Ok(wisp_engine::prepare(file, grant))
}

/// Opens a program's bytes, as often as they are needed.
type Open = Box<dyn FnMut() -> io::Result<Box<dyn Read>>>;

/// What to call a program in messages, its digest and its bytes.
fn source(
    program: Program,
    root: &Root<'_>,
    config: &Config,
) -> Result<(String, Digest, Open), ContainerError> {
    match program {
        Program::RootfsWasm { mut file, path } => {
            let digest = digest(&mut file, root, config).map_err(|source| ContainerError::Io {
                what: "read",
                path: PathBuf::from(&path),
                source,
            })?;
            let open = move || {
                let mut again = file.try_clone()?;
                again.rewind()?;
                Ok(Box::new(again) as Box<dyn Read>)
            };
            Ok((path, digest, Box::new(open)))
        }
        Program::LayerWasm(layer) => {
            let name = match &layer.title {
                Some(title) => format!("Wasm layer {title} ({})", layer.digest),
                None => format!("Wasm layer {}", layer.digest),
            };
            let digest = layer
                .digest
                .parse()
                .map_err(|e| ContainerError::Unsupported(format!("{name}: {e}")))?;
            let open = move || layer.open().map_err(io::Error::other);
            Ok((name, digest, Box::new(open)))
        }
        Program::Native => Err(ContainerError::Init(
            "a native program has nothing to compile".into(),
        )),
    }
}

/// The digest of a file of the container. What comes from the image unchanged
/// is read once per boot.
fn digest(file: &mut File, root: &Root<'_>, config: &Config) -> io::Result<Digest> {
    let Some(lower) = lower::of(file, root.path, root.mounts) else {
        return Digest::of(file);
    };
    let memo = Memo::from_config(config);
    let metadata = file.metadata()?;
    if let Some(digest) = memo.get(lower.place(), &metadata) {
        return Ok(digest);
    }
    let digest = Digest::of(file)?;
    if lower.is_local() {
        memo.put(lower.place(), &metadata, file, &digest);
    }
    Ok(digest)
}
