//! The compiler itself, in the one process that has it.

use wasmparser::{Chunk, Parser, Payload};
use wasmtime::{Engine, OutOfMemory, Precompiled};

use crate::settings::{Calls, Kind, settings};

/// Why bytes cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("not WebAssembly: the program is empty")]
    Empty,
    #[error(
        "precompiled {0}: native code in place of WebAssembly is never run; give the .wasm it \
         was made from"
    )]
    Precompiled(&'static str),
    #[error("WebAssembly text: compile it to binary first, for example with wasm-tools parse")]
    Text,
    #[error("not WebAssembly: it begins with {0:02x?} instead of \"\\0asm\"")]
    NotWasm(Vec<u8>),
    #[error("truncated WebAssembly: it ends after {0} bytes, in the middle")]
    Truncated(usize),
    #[error("invalid WebAssembly: {0}")]
    Invalid(String),
    #[error("compiler: {0}")]
    Engine(String),
    #[error("there is not enough memory to compile it")]
    Memory,
}

/// Compiles a core module or a component to code for this very machine.
///
/// # Errors
/// Bytes that are no valid WebAssembly binary, or use what the engine has not.
pub fn compile(bytes: &[u8]) -> Result<Vec<u8>, CompileError> {
    if !recognise(bytes)? {
        return engine(Kind::MODULE)?
            .precompile_module(bytes)
            .map_err(|error| problem(&error));
    }
    let names = Names::of(bytes);
    let engine = |calls| engine(Kind::new(calls, !names.run));
    if !names.tasks {
        let code = engine(Calls::Synchronous)?.precompile_component(bytes);
        match code.map_err(|error| problem(&error)) {
            // It may be asynchronous without saying so in its imports; what is
            // wrong otherwise is wrong once more.
            Err(CompileError::Invalid(_)) => {}
            done => return done,
        }
    }
    engine(Calls::Asynchronous)?
        .precompile_component(bytes)
        .map_err(|error| problem(&error))
}

fn engine(kind: Kind) -> Result<Engine, CompileError> {
    let failed = |error| CompileError::Engine(format!("{error:#}"));
    let mut config = settings(kind).map_err(failed)?;
    config.parallel_compilation(true);
    Engine::new(&config).map_err(failed)
}

fn problem(error: &wasmtime::Error) -> CompileError {
    if error.chain().any(|cause| cause.is::<OutOfMemory>()) {
        CompileError::Memory
    } else {
        CompileError::Invalid(format!("{error:#}"))
    }
}

/// What a command exports; a component that does is run, not asked.
const RUN: [&str; 2] = ["wasi:cli/run@0.2.", "wasi:cli/run@0.3."];

/// What the names of a component's imports and exports tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    /// It has to do with WASI 0.3, most of whose interfaces are asynchronous.
    tasks: bool,
    /// It is a command, whatever else it is.
    run: bool,
}

impl Names {
    fn of(bytes: &[u8]) -> Self {
        let mut depth = 0;
        let mut names = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            // What is not valid is told by the compiler.
            let Ok(payload) = payload else { break };
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports.into_iter().flatten() {
                        names.see(import.name.name);
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports.into_iter().flatten() {
                        names.see(export.name.name);
                        names.run |= RUN.iter().any(|run| export.name.name.starts_with(run));
                    }
                }
                _ => {}
            }
        }
        names
    }

    fn see(&mut self, name: &str) {
        self.tasks |= name.contains("@0.3.");
    }
}

/// Whether it is a component; a core module otherwise.
fn recognise(bytes: &[u8]) -> Result<bool, CompileError> {
    match Engine::detect_precompiled(bytes) {
        Some(Precompiled::Module) => return Err(CompileError::Precompiled("core module")),
        Some(Precompiled::Component) => return Err(CompileError::Precompiled("component")),
        None => {}
    }
    if bytes.is_empty() {
        return Err(CompileError::Empty);
    }
    if !bytes.starts_with(b"\0asm") {
        // Part of the magic is a program that was cut off, not another format.
        if b"\0asm".starts_with(bytes) {
            return Err(CompileError::Truncated(bytes.len()));
        }
        let text = bytes.trim_ascii_start();
        if text.starts_with(b"(") || text.starts_with(b";;") {
            return Err(CompileError::Text);
        }
        return Err(CompileError::NotWasm(
            bytes.iter().take(4).copied().collect(),
        ));
    }
    if is_truncated(bytes) {
        return Err(CompileError::Truncated(bytes.len()));
    }
    Ok(Parser::is_component(bytes))
}

/// Whether the last section wants more bytes than there are.
fn is_truncated(bytes: &[u8]) -> bool {
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        // Saying that more may follow makes the parser ask for it.
        let (consumed, payload) = match parser.parse(rest, false) {
            // Between two sections is a fair end.
            Ok(Chunk::NeedMoreData(_)) => return !rest.is_empty(),
            Ok(Chunk::Parsed { consumed, payload }) => (consumed, payload),
            Err(_) => return false,
        };
        // How long a section is, is enough; what is in it is not looked at.
        let section = match payload {
            Payload::CodeSectionStart { range, .. } => {
                parser.skip_section();
                range
            }
            // The parser itself goes on behind these.
            Payload::ModuleSection {
                unchecked_range, ..
            }
            | Payload::ComponentSection {
                unchecked_range, ..
            } => unchecked_range,
            _ => {
                rest = &rest[consumed..];
                continue;
            }
        };
        let Some(after) = bytes.get(section.end..) else {
            return true;
        };
        rest = after;
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
