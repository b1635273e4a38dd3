//! Wasm layers of a container's image, from containerd's content store.

use std::io::Read;

use crate::blobs::Blobs;
use crate::error::ImageError;
use crate::manifest::{Descriptor, Document, Manifest, by_fitness};
use crate::media;
use crate::store::{Address, Store};

/// An index may list indexes, but nobody needs more of them in one another.
pub(crate) const DEEPEST_INDEX: u32 = 4;

/// A layer that is a Wasm file.
#[derive(Debug, Clone)]
pub struct WasmLayer {
    /// `sha256:…`, as the image's manifest has it.
    pub digest: String,
    /// One of [`media::WASM_LAYERS`].
    pub media_type: String,
    /// The layer's file name, if it is annotated with one.
    pub title: Option<String>,
    /// In bytes.
    pub size: u64,
    store: Address,
}

impl WasmLayer {
    /// Opens the layer's bytes. That they have the layer's digest is for the
    /// reader to check, who hashes them anyway.
    ///
    /// # Errors
    /// When containerd does not have it or does not answer.
    pub fn open(&self) -> Result<Box<dyn Read>, ImageError> {
        Store::connect(self.store.clone())?.blob(&self.digest)
    }

    #[cfg(test)]
    pub(crate) fn example(title: Option<&str>) -> Self {
        Self {
            digest: format!("sha256:{title:?}"),
            media_type: media::WASM.into(),
            title: title.map(Into::into),
            size: 8,
            store: Address {
                socket: "/nonexistent".into(),
                namespace: "default".into(),
            },
        }
    }
}

/// The Wasm layers of the image of a container, none if it has no image.
///
/// `socket` is containerd's gRPC socket.
///
/// # Errors
/// When containerd does not answer, the image is gone, or makes no sense.
pub fn layers(
    socket: &str,
    namespace: &str,
    container: &str,
) -> Result<Vec<WasmLayer>, ImageError> {
    let store = Store::connect(Address {
        socket: socket.into(),
        namespace: namespace.into(),
    })?;
    let image = store.image_of(container)?;
    if image.is_empty() {
        return Ok(Vec::new());
    }
    let Some(target) = store.target(&image)? else {
        return Err(ImageError::ImageGone {
            image,
            container: container.into(),
        });
    };
    let layers = manifests(&store, &image, &target, DEEPEST_INDEX)?
        .into_iter()
        .map(|manifest| wasm_layers(&store, &manifest))
        .find(|layers| !layers.is_empty());
    Ok(layers.unwrap_or_default())
}

/// Those layers of an image that are Wasm files.
pub(crate) fn wasm_layers(store: &Store, manifest: &Manifest) -> Vec<WasmLayer> {
    let layers = manifest.layers.iter();
    layers
        .filter(|layer| media::WASM_LAYERS.contains(&layer.media_type.as_str()))
        .map(|layer| WasmLayer {
            title: layer.annotations.get(media::TITLE).cloned(),
            digest: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            size: layer.size,
            store: store.address.clone(),
        })
        .collect()
}

/// The manifests of the image at `target`: of an index, those that are there,
/// first those that suit this machine best.
pub(crate) fn manifests(
    store: &dyn Blobs,
    image: &str,
    target: &Descriptor,
    deep: u32,
) -> Result<Vec<Manifest>, ImageError> {
    let malformed = |reason: String| ImageError::Malformed {
        image: image.into(),
        what: target.digest.clone(),
        reason,
    };
    let Some(bytes) = store.document(image, &target.digest)? else {
        // An index may list what was never pulled.
        return Ok(Vec::new());
    };
    match Document::parse(&target.media_type, &bytes).map_err(malformed)? {
        Document::Manifest(manifest) => Ok(vec![manifest]),
        Document::Index(_) if deep == 0 => Err(malformed("too many indexes in one another".into())),
        Document::Index(index) => {
            let mut found = Vec::new();
            for entry in by_fitness(index.manifests) {
                found.extend(manifests(store, image, &entry, deep - 1)?);
            }
            Ok(found)
        }
        Document::Other => Ok(Vec::new()),
    }
}
