use std::io;
use std::path::{Path, PathBuf};

use crate::format::Format;

/// Why an image cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("{what} {path}: {source}", path = .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("write the image: {0}")]
    Write(#[source] io::Error),
    #[error("no program: name a .wasm file")]
    NoProgram,
    #[error("{path} is not a file", path = .0.display())]
    NotAFile(PathBuf),
    #[error("{path} {is}", path = .path.display(), is = why_not_wasm(*.format))]
    NotWasm { path: PathBuf, format: Format },
    #[error("{path}: the name is not valid UTF-8, which a path in an image must be", path = .0.display())]
    Name(PathBuf),
    #[error(
        "image name {0:?}: it must be one word without spaces or control characters, like \
         docker.io/library/hello:latest"
    )]
    Reference(String),
    #[error("platform {0:?}: write os/architecture or os/architecture/variant, like linux/amd64")]
    Platform(String),
    #[error("platform {0} stands twice: each program needs one of its own")]
    PlatformTwice(String),
    #[error("add {0:?}: write SOURCE:/DESTINATION")]
    Addition(String),
    #[error("add {text:?}: {problem}")]
    Destination { text: String, problem: &'static str },
    #[error("{path} is neither a file nor a directory nor a symbolic link", path = .0.display())]
    Special(PathBuf),
    #[error("/{path} stands twice in the image: from {first} and from {second}", first = .first.display(), second = .second.display())]
    Twice {
        path: String,
        first: PathBuf,
        second: PathBuf,
    },
    #[error("{path} changed while it was read", path = .0.display())]
    Changed(PathBuf),
}

impl PackError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source,
        }
    }
}

fn why_not_wasm(format: Format) -> &'static str {
    match format {
        Format::Precompiled => {
            "is precompiled native code, which wisp never runs: give the .wasm it was made from"
        }
        Format::Elf => "is a native program (ELF), not WebAssembly",
        Format::Script => "is a script, not WebAssembly",
        Format::Truncated => "is truncated: it ends within the WebAssembly header",
        Format::UnknownWasm => "is WebAssembly of an unknown version",
        Format::Module | Format::Component | Format::Other => {
            "is not WebAssembly: it does not begin with \"\\0asm\""
        }
    }
}
