//! OCI images of Wasm programs, as tar archives that `ctr image import` takes.
//!
//! The same input gives the same bytes: no times, no owners, sorted names.

mod add;
mod archive;
mod error;
mod files;
mod platform;
mod reference;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use add::Addition;
pub use error::PackError;
pub use platform::Platform;
pub use reference::check_reference;

use crate::format::{Format, HEAD};
use crate::media;
use archive::Archive;
use files::Files;

/// An image to be packed.
#[derive(Debug, Clone)]
pub struct Pack {
    /// What the image is to be called: `docker.io/library/hello:latest`.
    pub reference: String,
    /// The programs and what each runs on. More than one makes an index.
    pub programs: Vec<(PathBuf, Platform)>,
    pub shape: Shape,
    /// Files beside the program.
    pub add: Vec<Addition>,
    pub config: Config,
}

/// How an image carries its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As a file in `/`, like any image.
    Plain,
    /// As a layer of its own, which containerd does not unpack.
    Artifact(LayerType),
}

/// The media type of a program's layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// The component type for a component, the content type for a module.
    Auto,
    /// `application/vnd.bytecodealliance.wasm.component.layer.v0+wasm`
    Component,
    /// `application/vnd.wasm.content.layer.v1+wasm`
    Content,
    /// `application/wasm`
    Wasm,
}

impl LayerType {
    fn media_type(self, format: Format) -> &'static str {
        match (self, format) {
            (Self::Component, _) | (Self::Auto, Format::Component) => media::WASM_COMPONENT,
            (Self::Content, _) | (Self::Auto, _) => media::WASM_CONTENT,
            (Self::Wasm, _) => media::WASM,
        }
    }
}

/// How the image's program is run, if its user says nothing else.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Empty: the program's path.
    pub entrypoint: Vec<String>,
    /// Arguments after the entry point.
    pub cmd: Vec<String>,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
}

impl Pack {
    /// Writes the image to `output`.
    ///
    /// # Errors
    /// Input that is no program or cannot be read, and those of `output`.
    pub fn write(&self, output: &mut dyn Write) -> Result<(), PackError> {
        check_reference(&self.reference)?;
        for (at, (_, platform)) in self.programs.iter().enumerate() {
            if self.programs[..at].iter().any(|(_, p)| p == platform) {
                return Err(PackError::PlatformTwice(platform.to_string()));
            }
        }
        let mut archive = Archive::default();
        let mut images = Vec::with_capacity(self.programs.len());
        for (path, platform) in &self.programs {
            images.push(self.image(path, platform, &mut archive)?);
        }
        let (target, docker) = match images.as_slice() {
            [] => return Err(PackError::NoProgram),
            [(target, docker)] => (target.clone(), docker.clone()),
            several => {
                let manifests: Vec<&Value> = several.iter().map(|(target, _)| target).collect();
                let index = json!({
                    "schemaVersion": 2,
                    "mediaType": media::INDEX,
                    "manifests": manifests,
                });
                (archive.json(media::INDEX, &index), None)
            }
        };
        archive.write(&self.reference, target, docker, output)
    }

    /// Adds one program's image and gives its descriptor, and for plain images
    /// what `docker load` wants to know.
    fn image(
        &self,
        path: &Path,
        platform: &Platform,
        archive: &mut Archive,
    ) -> Result<(Value, Option<Value>), PackError> {
        let (file, format) = open_program(path)?;
        let name = program_name(path)?;
        let mut files = Files::default();
        let mut layers = Vec::new();
        let mut wasm = None;
        match self.shape {
            Shape::Plain => files.add_program(&name, path, file)?,
            Shape::Artifact(layer) => wasm = Some((file, layer.media_type(format))),
        }
        for addition in &self.add {
            files.add(addition)?;
        }
        if !files.is_empty() {
            layers.push(archive.spool(media::TAR, |spool| files.write(spool))?);
        }
        // Layers are stored as they are unpacked, so that a layer's digest is
        // its diff id. containerd wants those of the layers that it unpacks and
        // no others, or it refuses the image.
        let diff_ids: Vec<Value> = layers.iter().map(|l| l["digest"].clone()).collect();
        if let Some((mut file, media_type)) = wasm {
            let mut layer = archive.spool(media_type, |spool| {
                io::copy(&mut file, spool)
                    .map(drop)
                    .map_err(|source| PackError::io("read", path, source))
            })?;
            layer["annotations"] = json!({ media::TITLE: name });
            layers.push(layer);
        }
        let mut config = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": self.config.to_json(&name),
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
        let config = archive.json(media::CONFIG, &config);
        let docker = (self.shape == Shape::Plain).then(|| {
            let file = |blob: &Value| archive::path_of(blob["digest"].as_str().unwrap_or_default());
            json!({
                "Config": file(&config),
                "Layers": layers.iter().map(file).collect::<Vec<_>>(),
            })
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::MANIFEST,
            "config": config,
            "layers": layers,
        });
        let mut target = archive.json(media::MANIFEST, &manifest);
        target["platform"] = platform.to_json();
        Ok((target, docker))
    }
}

impl Config {
    fn to_json(&self, program: &str) -> Value {
        let mut config = Map::new();
        let entrypoint = if self.entrypoint.is_empty() {
            json!([format!("/{program}")])
        } else {
            json!(self.entrypoint)
        };
        config.insert("Entrypoint".into(), entrypoint);
        if !self.cmd.is_empty() {
            config.insert("Cmd".into(), json!(self.cmd));
        }
        if !self.env.is_empty() {
            config.insert("Env".into(), json!(self.env));
        }
        if let Some(workdir) = &self.workdir {
            config.insert("WorkingDir".into(), json!(workdir));
        }
        if let Some(user) = &self.user {
            config.insert("User".into(), json!(user));
        }
        if !self.labels.is_empty() {
            config.insert("Labels".into(), json!(self.labels));
        }
        Value::Object(config)
    }
}

/// Opens a program, making sure that it is WebAssembly.
fn open_program(path: &Path) -> Result<(File, Format), PackError> {
    let io_error = |what| move |source| PackError::io(what, path, source);
    let mut file = File::open(path).map_err(io_error("open"))?;
    if !file.metadata().map_err(io_error("open"))?.is_file() {
        return Err(PackError::NotAFile(path.into()));
    }
    let mut head = Vec::with_capacity(HEAD);
    Read::take(&file, HEAD as u64)
        .read_to_end(&mut head)
        .map_err(io_error("read"))?;
    file.rewind().map_err(io_error("read"))?;
    match Format::of(&head) {
        format @ (Format::Module | Format::Component) => Ok((file, format)),
        format => Err(PackError::NotWasm {
            path: path.into(),
            format,
        }),
    }
}

fn program_name(path: &Path) -> Result<String, PackError> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name {
        Some(name) => Ok(name.to_owned()),
        None => Err(PackError::Name(path.into())),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
