//! What can be told about a program without running it.

use anyhow::{Result, bail};
use serde::Serialize;
use wasmparser::{ExternalKind, Parser, Payload, Validator, WasmFeatures};
use wisp_engine::{EngineError, World};
use wisp_image::format::Format;

use super::needs::Need;

/// Where a core module's imports must come from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// A program, as its own bytes describe it.
#[derive(Debug, Serialize)]
pub struct Program {
    /// `component` or `core module`.
    pub kind: &'static str,
    /// In bytes.
    pub size: usize,
    /// Whether and as what wisp runs it.
    pub world: Option<String>,
    /// Why wisp does not run it.
    pub problems: Vec<String>,
    /// Versions of WASI that it uses: `preview 1`, `0.2.6`.
    pub wasi: Vec<String>,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// What its imports let it ask for.
    pub needs: Vec<Need>,
}

impl Program {
    /// Reads a program.
    ///
    /// # Errors
    /// Bytes that are no valid Wasm.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let kind = match Format::of(bytes) {
            Format::Module => "core module",
            Format::Component => "component",
            Format::Precompiled => bail!(
                "precompiled native code, which wisp never runs; inspect the .wasm it was made from"
            ),
            Format::Elf => bail!("a native program (ELF), not WebAssembly"),
            Format::Script => bail!("a script, not WebAssembly"),
            Format::Truncated => bail!("truncated: it ends within the WebAssembly header"),
            Format::UnknownWasm => bail!("WebAssembly of an unknown version"),
            Format::Other if bytes.is_empty() => bail!("empty, not WebAssembly"),
            Format::Other => bail!("not WebAssembly: it does not begin with \"\\0asm\""),
        };
        let names = Names::read(bytes)?;
        let world = match kind {
            "component" => wisp_engine::of_component(names.exports.iter().map(|(n, _)| n.as_str())),
            _ => wisp_engine::of_module(names.exports.iter().map(|(n, e)| (n.as_str(), *e))),
        };
        let (world, mut problems) = sort(world);
        problems.extend(
            names
                .imports
                .iter()
                .filter(|import| !is_provided(import, kind))
                .map(|import| format!("nobody provides the import {import}")),
        );
        Ok(Self {
            kind,
            size: bytes.len(),
            world,
            problems,
            wasi: wasi(&names),
            needs: Need::of(&names.imports),
            imports: names.imports,
            exports: names.exports.into_iter().map(|(name, _)| name).collect(),
        })
    }
}

fn sort(world: Result<World, EngineError>) -> (Option<String>, Vec<String>) {
    match world {
        Ok(world) => (Some(world.to_string()), Vec::new()),
        Err(error) => (None, vec![error.to_string()]),
    }
}

/// Names at a program's outside.
struct Names {
    imports: Vec<String>,
    /// Each with whether it is a function without parameters and results.
    exports: Vec<(String, bool)>,
}

impl Names {
    fn read(bytes: &[u8]) -> Result<Self> {
        // Which features the engine has is said when it compiles; here, what
        // can be read is shown.
        let types = match Validator::new_with_features(WasmFeatures::all()).validate_all(bytes) {
            Ok(types) => types,
            Err(error) if error.message().contains("unexpected end") => bail!(
                "truncated WebAssembly: {} at byte {}",
                error.message(),
                error.offset()
            ),
            Err(error) => bail!(
                "invalid WebAssembly: {} at byte {}",
                error.message(),
                error.offset()
            ),
        };
        let types = types.as_ref();
        let mut imports = Vec::new();
        let mut exports = Vec::new();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        imports.push(format!("{}.{}", import.module, import.name));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let is_entry = export.kind == ExternalKind::Func && {
                            let ty = types[types.core_function_at(export.index)].unwrap_func();
                            ty.params().is_empty() && ty.results().is_empty()
                        };
                        exports.push((export.name.to_owned(), is_entry));
                    }
                }
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        exports.push((export?.name.name.to_owned(), false));
                    }
                }
                _ => {}
            }
        }
        Ok(Self { imports, exports })
    }
}

/// The WASI versions among a program's names, each once.
fn wasi(names: &Names) -> Vec<String> {
    let mut versions: Vec<String> = names
        .imports
        .iter()
        .chain(names.exports.iter().map(|(name, _)| name))
        .filter_map(|name| match name.strip_prefix(PREVIEW_1) {
            Some(_) => Some("preview 1".to_owned()),
            None => name
                .strip_prefix("wasi:")
                .and_then(|name| name.split_once('@'))
                .map(|(_, version)| version.to_owned()),
        })
        .collect();
    versions.sort();
    versions.dedup();
    versions
}

/// Whether wisp's host has such an import. Types without a colon are parts of
/// the component's own interface.
fn is_provided(import: &str, kind: &str) -> bool {
    if kind != "component" {
        return import
            .strip_prefix(PREVIEW_1)
            .is_some_and(|rest| rest.starts_with('.'));
    }
    let Some((package, version)) = import.split_once('@') else {
        return false;
    };
    let Some((package, _)) = package.split_once('/') else {
        return false;
    };
    matches!(
        package,
        "wasi:cli"
            | "wasi:clocks"
            | "wasi:config"
            | "wasi:filesystem"
            | "wasi:http"
            | "wasi:io"
            | "wasi:random"
            | "wasi:sockets"
    ) && (version.starts_with("0.2.") || version.starts_with("0.3."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty module with a function type, a function and an export of it.
    const START: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

    #[test]
    fn a_core_module_with_start_is_a_command() {
        let program = Program::read(START).expect("a module");
        assert_eq!(program.kind, "core module");
        assert_eq!(program.world.as_deref(), Some("command (WASI preview 1)"));
        assert_eq!(program.exports, ["_start"]);
        assert!(program.problems.is_empty() && program.imports.is_empty());
    }

    #[test]
    fn cut_anywhere_it_is_an_error_and_never_a_panic() {
        for end in 0..START.len() {
            // After a whole section, what is left can be a module again.
            let _ = Program::read(&START[..end]);
        }
        for end in [3, 9, 12, START.len() - 1] {
            let error = Program::read(&START[..end]).expect_err("cut").to_string();
            assert!(error.contains("truncated"), "{end}: {error}");
        }
    }

    #[test]
    fn any_changed_byte_is_read_or_refused() {
        for at in 0..START.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = START.to_vec();
                bytes[at] = value;
                let _ = Program::read(&bytes);
            }
        }
    }

    #[test]
    fn what_is_no_wasm_is_called_by_its_name() {
        for (bytes, why) in [
            (&b""[..], "empty"),
            (b"hello wasm", "not WebAssembly"),
            (b"#!/bin/sh\n", "script"),
            (b"\x7fELF\x02\x01\x01\0", "native"),
            (b"\x7fELF\x02\x01\x01\xc8", "precompiled"),
            (b"\0asm\x07\0\0\0", "version"),
            (b"\0asm\x01\0\0\0\xff\xff\xff", "WebAssembly"),
        ] {
            let error = Program::read(bytes).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn imports_are_provided_by_interface_and_version() {
        for (import, kind, provided) in [
            ("wasi:cli/stdout@0.2.6", "component", true),
            ("wasi:http/client@0.3.0", "component", true),
            ("wasi:cli/stdout@0.4.0", "component", false),
            ("wasi:keyvalue/store@0.2.0", "component", false),
            ("log", "component", false),
            ("wasi_snapshot_preview1.fd_write", "core module", true),
            ("env.log", "core module", false),
        ] {
            assert_eq!(is_provided(import, kind), provided, "{import}");
        }
    }
}
