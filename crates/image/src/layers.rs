//! Wasm layers of a container's image, from containerd's content store.
//!
//! Everything here blocks. It runs on a runtime of its own in the calling
//! thread and leaves no thread behind, as the caller is about to fork.

use std::future::Future;
use std::io::{self, Read};
use std::time::Duration;

use containerd_client::Client;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, ReadContentRequest, ReadContentResponse,
};
use containerd_client::tonic::metadata::AsciiMetadataValue;
use containerd_client::tonic::{Code, IntoRequest, Request, Status, Streaming};
use tokio::runtime::{Builder, Runtime};

use crate::error::ImageError;
use crate::manifest::{Descriptor, Document, Manifest, by_fitness};
use crate::media;

/// How long containerd may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Manifests are kilobytes; what is larger is no manifest.
const LARGEST_DOCUMENT: usize = 8 << 20;
/// containerd sends content in pieces of up to this size.
const LARGEST_MESSAGE: usize = 16 << 20;
/// An index may list indexes, but nobody needs more of them in one another.
const DEEPEST_INDEX: u32 = 4;

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
        let store = Store::connect(self.store.clone())?;
        let stream = store.content(&self.digest)?;
        Ok(Box::new(LayerReader {
            stream,
            store,
            piece: Vec::new(),
            at: 0,
        }))
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
    let layers = store.wasm_layers(&image, &target, DEEPEST_INDEX)?;
    Ok(layers
        .into_iter()
        .map(|layer| WasmLayer {
            title: layer.annotations.get(media::TITLE).cloned(),
            digest: layer.digest,
            media_type: layer.media_type,
            size: layer.size,
            store: store.address.clone(),
        })
        .collect())
}

#[derive(Debug, Clone)]
struct Address {
    socket: String,
    namespace: String,
}

/// A connection to containerd.
struct Store {
    // Declared first, dropped first: its tasks end while their runtime lives.
    client: Client,
    runtime: Runtime,
    address: Address,
    namespace: AsciiMetadataValue,
}

impl Store {
    fn connect(address: Address) -> Result<Self, ImageError> {
        let failed = |reason: String| ImageError::Containerd {
            address: address.socket.clone(),
            what: "a connection".into(),
            reason,
        };
        let namespace = AsciiMetadataValue::try_from(&address.namespace)
            .map_err(|_| failed(format!("{:?} is no namespace", address.namespace)))?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let connecting = containerd_client::connect(&address.socket);
        let channel = runtime
            .block_on(async { tokio::time::timeout(PATIENCE, connecting).await })
            .map_err(|_| failed("no answer".into()))?
            .map_err(|error| failed(chain(&error)))?;
        Ok(Self {
            client: Client::from(channel),
            runtime,
            namespace,
            address,
        })
    }

    /// Waits for one answer.
    fn answer<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, call).await })
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = message.into_request();
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        request
    }

    fn failed(&self, what: impl Into<String>) -> impl FnOnce(Status) -> ImageError {
        let address = self.address.socket.clone();
        let what = what.into();
        move |status| ImageError::Containerd {
            address,
            what,
            reason: status.message().to_owned(),
        }
    }

    fn image_of(&self, container: &str) -> Result<String, ImageError> {
        let request = self.request(GetContainerRequest {
            id: container.into(),
        });
        let mut containers = self.client.containers();
        let answer = self
            .answer(containers.get(request))
            .map_err(self.failed(format!("container {container}")))?;
        Ok(answer.into_inner().container.unwrap_or_default().image)
    }

    fn target(&self, image: &str) -> Result<Option<Descriptor>, ImageError> {
        let request = self.request(GetImageRequest { name: image.into() });
        let mut images = self.client.images();
        match self.answer(images.get(request)) {
            Ok(answer) => {
                let target = answer.into_inner().image.and_then(|image| image.target);
                Ok(target.map(|target| Descriptor {
                    media_type: target.media_type,
                    digest: target.digest,
                    ..Descriptor::default()
                }))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failed(format!("image {image}"))(status)),
        }
    }

    /// The Wasm layers of the image at `target`. In an index, those of the
    /// entry that suits this machine best among those that have some.
    fn wasm_layers(
        &self,
        image: &str,
        target: &Descriptor,
        deep: u32,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let malformed = |reason: String| ImageError::Malformed {
            image: image.into(),
            what: target.digest.clone(),
            reason,
        };
        let Some(bytes) = self.document(image, &target.digest)? else {
            // An index may list what was never pulled.
            return Ok(Vec::new());
        };
        match Document::parse(&target.media_type, &bytes).map_err(malformed)? {
            Document::Manifest(Manifest { layers }) => Ok(layers
                .into_iter()
                .filter(|layer| media::WASM_LAYERS.contains(&layer.media_type.as_str()))
                .collect()),
            Document::Index(_) if deep == 0 => {
                Err(malformed("too many indexes in one another".into()))
            }
            Document::Index(index) => {
                for entry in by_fitness(index.manifests) {
                    let layers = self.wasm_layers(image, &entry, deep - 1)?;
                    if !layers.is_empty() {
                        return Ok(layers);
                    }
                }
                Ok(Vec::new())
            }
            Document::Other => Ok(Vec::new()),
        }
    }

    fn document(&self, image: &str, digest: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let failed = |status| self.failed(format!("{digest} of image {image}"))(status);
        let mut bytes = Vec::new();
        let mut stream = match self.stream(digest) {
            Ok(stream) => stream,
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(failed(status)),
        };
        loop {
            match self.answer(stream.message()) {
                Ok(Some(piece)) => bytes.extend_from_slice(&piece.data),
                Ok(None) => return Ok(Some(bytes)),
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) => return Err(failed(status)),
            }
            if bytes.len() > LARGEST_DOCUMENT {
                return Err(ImageError::Malformed {
                    image: image.into(),
                    what: digest.into(),
                    reason: format!("larger than {LARGEST_DOCUMENT} bytes"),
                });
            }
        }
    }

    fn content(&self, digest: &str) -> Result<Streaming<ReadContentResponse>, ImageError> {
        self.stream(digest)
            .map_err(self.failed(format!("layer {digest}")))
    }

    fn stream(&self, digest: &str) -> Result<Streaming<ReadContentResponse>, Status> {
        let request = self.request(ReadContentRequest {
            digest: digest.into(),
            offset: 0,
            size: 0,
        });
        let mut content: ContentClient<_> = self
            .client
            .content()
            .max_decoding_message_size(LARGEST_MESSAGE);
        self.answer(content.read(request))
            .map(containerd_client::tonic::Response::into_inner)
    }
}

/// Reads a layer as containerd sends it.
struct LayerReader {
    stream: Streaming<ReadContentResponse>,
    store: Store,
    piece: Vec<u8>,
    at: usize,
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let next = self.store.answer(self.stream.message());
            match next.map_err(|status| io::Error::other(status.message().to_owned()))? {
                Some(piece) => {
                    self.piece = piece.data;
                    self.at = 0;
                }
                None => return Ok(0),
            }
        }
        let read = Read::read(&mut &self.piece[self.at..], buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// An error with its causes; tonic's own text is "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
