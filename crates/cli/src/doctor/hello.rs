//! A tiny program and its image.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result};
use serde_json::Value;
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, ImportSection, MemorySection, MemoryType, Module, TypeSection, ValType,
};
use wisp_image::pack::{Config, Pack, Platform, Shape};

/// What it prints.
pub const SAID: &str = "hello from wisp\n";
/// What it is called in its image.
pub const FILE: &str = "hello.wasm";
/// What its image is called.
pub const IMAGE: &str = "localhost/wisp-doctor:hello";

/// The program: it writes [`SAID`] to its standard output (WASI preview 1) and
/// traps if it cannot.
pub fn program() -> Vec<u8> {
    const TEXT: i32 = 16;
    let length = i32::try_from(SAID.len()).unwrap_or_default();
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    types.ty().function([], []);
    let mut imports = ImportSection::new();
    imports.import(
        "wasi_snapshot_preview1",
        "fd_write",
        EntityType::Function(0),
    );
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: Some(1),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("_start", ExportKind::Func, 1);
    let mut start = Function::new([]);
    // Descriptor 1, one piece of text described at 0, the count goes to 8.
    start
        .instructions()
        .i32_const(1)
        .i32_const(0)
        .i32_const(1)
        .i32_const(8)
        .call(0)
        .if_(wasm_encoder::BlockType::Empty)
        .unreachable()
        .end()
        .end();
    let mut code = CodeSection::new();
    code.function(&start);
    let mut data = DataSection::new();
    let piece = [TEXT.to_le_bytes(), length.to_le_bytes()].concat();
    data.active(0, &ConstExpr::i32_const(0), piece);
    data.active(0, &ConstExpr::i32_const(TEXT), SAID.bytes());

    let mut module = Module::new();
    module
        .section(&types)
        .section(&imports)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&code)
        .section(&data);
    module.finish()
}

/// An image's blobs by their digests, and the one that describes it.
#[derive(Debug)]
pub struct Image {
    /// Everything that its manifest leads to, and itself.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// The manifest's descriptor.
    pub target: Value,
    /// The layers' descriptors.
    pub layers: Vec<Value>,
    /// The digests of the layers as they are unpacked.
    pub diff_ids: Vec<String>,
}

/// Packs the program as `wisp pack` does.
///
/// # Errors
/// When there is no room for a temporary file.
pub fn image() -> Result<Image> {
    let dir = tempfile::tempdir().context("a temporary directory")?;
    let path = dir.path().join(FILE);
    std::fs::write(&path, program()).context("write the program")?;
    let pack = Pack {
        reference: IMAGE.to_owned(),
        programs: vec![(path, Platform::host())],
        shape: Shape::Plain,
        add: Vec::new(),
        config: Config::default(),
    };
    let mut archive = Vec::new();
    pack.write(&mut archive).context("pack the image")?;
    read(&archive)
}

fn read(archive: &[u8]) -> Result<Image> {
    let mut files = BTreeMap::new();
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    let index: Value = serde_json::from_slice(files.get("index.json").context("no index")?)?;
    let blobs: BTreeMap<String, Vec<u8>> = files
        .into_iter()
        .filter_map(|(path, bytes)| {
            let digest = path.strip_prefix("blobs/")?.replacen('/', ":", 1);
            Some((digest, bytes))
        })
        .collect();
    let document = |descriptor: &Value| -> Result<Value> {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        Ok(serde_json::from_slice(
            blobs.get(digest).context("a blob is missing")?,
        )?)
    };
    let target = index["manifests"][0].clone();
    let manifest = document(&target)?;
    let config = document(&manifest["config"])?;
    Ok(Image {
        layers: manifest["layers"].as_array().cloned().unwrap_or_default(),
        diff_ids: config["rootfs"]["diff_ids"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect(),
        target,
        blobs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_valid() {
        wasmparser::validate(&program()).expect("valid");
    }

    #[test]
    fn the_image_has_one_layer_with_the_program() {
        let image = image().expect("packed");
        assert_eq!(image.layers.len(), 1);
        assert_eq!(image.diff_ids.len(), 1);
        let digest = image.layers[0]["digest"].as_str().expect("a digest");
        assert!(image.blobs.contains_key(digest));
    }
}
