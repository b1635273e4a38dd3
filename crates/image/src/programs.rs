//! The Wasm programs of images, found by their manifests alone: nothing is
//! unpacked or mounted.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::blobs::Blobs;
use crate::choose::candidates;
use crate::error::ImageError;
use crate::find::find;
use crate::layers::{DEEPEST_INDEX, WasmLayer, manifests, wasm_layers};
use crate::manifest::{Manifest, null_is_default};
use crate::media;
use crate::store::{Address, Store};

/// What the name of a program ends with that is worth looking for. Only the
/// bytes tell, but nobody wants to read all layers of every native image.
const EXTENSION: &str = ".wasm";

/// The images in a namespace of a containerd. Everything here blocks.
pub struct Images {
    store: Store,
}

/// An image's name and what it is at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageRecord {
    pub name: String,
    /// Of the manifest or index that it names.
    pub digest: String,
}

/// A Wasm program of an image.
#[derive(Debug)]
pub enum ImageProgram {
    /// A layer of its own.
    Layer(WasmLayer),
    /// The file that the image starts: a copy without a name.
    File { path: String, file: File },
}

/// The part of an image's configuration that says what it starts.
#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default, deserialize_with = "null_is_default")]
    config: Process,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Process {
    #[serde(deserialize_with = "null_is_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    working_dir: String,
}

impl Images {
    /// Connects to containerd's gRPC service at the path `socket`.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn connect(socket: &str, namespace: &str) -> Result<Self, ImageError> {
        Ok(Self {
            store: Store::connect(Address {
                socket: socket.into(),
                namespace: namespace.into(),
            })?,
        })
    }

    /// The names of all namespaces, whatever this one is.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn namespaces(&self) -> Result<Vec<String>, ImageError> {
        self.store.namespaces()
    }

    /// The images in the namespace.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        let images = self.store.images()?.into_iter();
        Ok(images
            .map(|(name, digest)| ImageRecord { name, digest })
            .collect())
    }

    /// The Wasm programs of an image: its Wasm layers, and the file that it
    /// starts if that is called `.wasm`. Of an image for several platforms,
    /// those for the one that suits this machine best.
    ///
    /// # Errors
    /// An image that is not there or makes no sense, or a containerd that does
    /// not answer.
    pub fn programs(&self, image: &str) -> Result<Vec<ImageProgram>, ImageError> {
        let Some(target) = self.store.target(image)? else {
            return Err(ImageError::NoImage {
                image: image.into(),
                namespace: self.store.address.namespace.clone(),
            });
        };
        for manifest in manifests(&self.store, image, &target, DEEPEST_INDEX)? {
            let mut programs: Vec<ImageProgram> = wasm_layers(&self.store, &manifest)
                .into_iter()
                .map(ImageProgram::Layer)
                .collect();
            programs.extend(started(&self.store, image, &manifest)?);
            if !programs.is_empty() {
                return Ok(programs);
            }
        }
        Ok(Vec::new())
    }
}

/// The file that an image starts, if it has it and it is called Wasm.
pub(crate) fn started(
    blobs: &dyn Blobs,
    image: &str,
    manifest: &Manifest,
) -> Result<Option<ImageProgram>, ImageError> {
    let process = process(blobs, image, manifest)?;
    let args: Vec<String> = process.entrypoint.into_iter().chain(process.cmd).collect();
    let Some(arg) = args.first().filter(|arg| arg.ends_with(EXTENSION)) else {
        return Ok(None);
    };
    let layers: Vec<&str> = manifest
        .layers
        .iter()
        .filter(|layer| media::is_files(&layer.media_type))
        .map(|layer| layer.digest.as_str())
        .collect();
    let mut open = |layer: usize| blobs.layer(layers[layer]).map_err(io::Error::other);
    let env_path = process
        .env
        .iter()
        .find_map(|pair| pair.strip_prefix("PATH="));
    for path in candidates(arg, env_path, &process.working_dir) {
        let found = find(&path, layers.len(), &mut open);
        if let Some(file) = found.map_err(|error| unreadable(image, &path, &error))? {
            return Ok(Some(ImageProgram::File {
                path: path.display().to_string(),
                file,
            }));
        }
    }
    Ok(None)
}

fn process(blobs: &dyn Blobs, image: &str, manifest: &Manifest) -> Result<Process, ImageError> {
    let config = &manifest.config;
    if ![media::CONFIG, media::DOCKER_CONFIG].contains(&config.media_type.as_str()) {
        return Ok(Process::default());
    }
    let Some(bytes) = blobs.document(image, &config.digest)? else {
        return Ok(Process::default());
    };
    let parsed: Result<Configuration, _> = serde_json::from_slice(&bytes);
    match parsed {
        Ok(configuration) => Ok(configuration.config),
        Err(error) => Err(ImageError::Malformed {
            image: image.into(),
            what: config.digest.clone(),
            reason: error.to_string(),
        }),
    }
}

fn unreadable(image: &str, path: &Path, error: &io::Error) -> ImageError {
    ImageError::Malformed {
        image: image.into(),
        what: format!("the layers, where {} should be,", path.display()),
        reason: error.to_string(),
    }
}
