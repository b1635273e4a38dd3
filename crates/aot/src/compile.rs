//! The compiler itself, in the one process that has it.

use wasmparser::{Chunk, Parser, Payload};
use wasmtime::{Engine, Precompiled};

use crate::settings::settings;

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
}

/// Compiles a core module or a component to code for this very machine.
///
/// # Errors
/// Bytes that are no valid WebAssembly binary, or use what the engine has not.
pub fn compile(bytes: &[u8]) -> Result<Vec<u8>, CompileError> {
    let component = recognise(bytes)?;
    let mut config = settings().map_err(|error| CompileError::Engine(format!("{error:#}")))?;
    config.parallel_compilation(true);
    let engine =
        Engine::new(&config).map_err(|error| CompileError::Engine(format!("{error:#}")))?;
    let code = if component {
        engine.precompile_component(bytes)
    } else {
        engine.precompile_module(bytes)
    };
    code.map_err(|error| CompileError::Invalid(format!("{error:#}")))
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

/// Whether the last section, at any depth, wants more bytes than there are.
fn is_truncated(bytes: &[u8]) -> bool {
    let mut parser = Parser::new(0);
    let mut parents = Vec::new();
    let mut rest = bytes;
    loop {
        // Saying that more may follow makes the parser ask for it.
        let Ok(chunk) = parser.parse(rest, false) else {
            return false;
        };
        let (consumed, payload) = match chunk {
            // Between two sections of the outermost level is a fair end.
            Chunk::NeedMoreData(_) => return !(rest.is_empty() && parents.is_empty()),
            Chunk::Parsed { consumed, payload } => (consumed, payload),
        };
        rest = &rest[consumed..];
        match payload {
            Payload::CodeSectionStart { size, .. } => {
                let Some(after) = rest.get(size as usize..) else {
                    return true;
                };
                parser.skip_section();
                rest = after;
            }
            Payload::ModuleSection {
                parser: inner,
                unchecked_range,
            }
            | Payload::ComponentSection {
                parser: inner,
                unchecked_range,
            } => {
                if unchecked_range.end > bytes.len() {
                    return true;
                }
                parents.push(std::mem::replace(&mut parser, inner));
            }
            Payload::End(_) => match parents.pop() {
                Some(parent) => parser = parent,
                None => return false,
            },
            _ => {}
        }
    }
}
