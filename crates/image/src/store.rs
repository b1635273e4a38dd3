//! A connection to containerd: images and their content.
//!
//! Everything here blocks. It runs on a runtime of its own in the calling
//! thread and leaves no thread behind, as the caller may be about to fork.

use std::future::Future;
use std::io::{self, Read};
use std::time::Duration;

use containerd_client::Client;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, ListImagesRequest, ListNamespacesRequest,
    ReadContentRequest, ReadContentResponse,
};
use containerd_client::tonic::metadata::AsciiMetadataValue;
use containerd_client::tonic::{Code, IntoRequest, Request, Status, Streaming};
use tokio::runtime::{Builder, Runtime};

use crate::blobs::Blobs;
use crate::error::ImageError;
use crate::manifest::Descriptor;

/// How long containerd may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Manifests are kilobytes; what is larger is no manifest.
const LARGEST_DOCUMENT: usize = 8 << 20;
/// containerd sends content in pieces of up to this size, and lists of images
/// in one.
const LARGEST_MESSAGE: usize = 16 << 20;

/// A namespace of a containerd.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Of its gRPC service, a path.
    pub socket: String,
    pub namespace: String,
}

/// A connection to containerd.
pub(crate) struct Store {
    // Declared first, dropped first: its tasks end while their runtime lives.
    client: Client,
    runtime: Runtime,
    pub(crate) address: Address,
    namespace: AsciiMetadataValue,
}

impl Store {
    pub(crate) fn connect(address: Address) -> Result<Self, ImageError> {
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

    pub(crate) fn image_of(&self, container: &str) -> Result<String, ImageError> {
        let request = self.request(GetContainerRequest {
            id: container.into(),
        });
        let mut containers = self.client.containers();
        let answer = self
            .answer(containers.get(request))
            .map_err(self.failed(format!("container {container}")))?;
        Ok(answer.into_inner().container.unwrap_or_default().image)
    }

    pub(crate) fn target(&self, image: &str) -> Result<Option<Descriptor>, ImageError> {
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

    /// The images of the namespace, each with its target's digest.
    pub(crate) fn images(&self) -> Result<Vec<(String, String)>, ImageError> {
        let request = self.request(ListImagesRequest::default());
        let mut images = self
            .client
            .images()
            .max_decoding_message_size(LARGEST_MESSAGE);
        let answer = self
            .answer(images.list(request))
            .map_err(self.failed(format!(
                "the images in namespace {}",
                self.address.namespace
            )))?;
        let images = answer.into_inner().images.into_iter();
        Ok(images
            .filter_map(|image| Some((image.name, image.target?.digest)))
            .collect())
    }

    /// The namespaces there are.
    pub(crate) fn namespaces(&self) -> Result<Vec<String>, ImageError> {
        let request = self.request(ListNamespacesRequest::default());
        let mut namespaces = self.client.namespaces();
        let answer = self
            .answer(namespaces.list(request))
            .map_err(self.failed("its namespaces"))?;
        let namespaces = answer.into_inner().namespaces.into_iter();
        Ok(namespaces.map(|namespace| namespace.name).collect())
    }

    /// Reads a blob. That it has its digest is for the reader to check.
    pub(crate) fn blob(self, digest: &str) -> Result<Box<dyn Read>, ImageError> {
        let stream = self.content(digest)?;
        Ok(Box::new(Blob {
            stream,
            store: self,
            piece: Vec::new(),
            at: 0,
        }))
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

impl Blobs for Store {
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

    fn layer(&self, digest: &str) -> Result<Box<dyn Read>, ImageError> {
        Self::connect(self.address.clone())?.blob(digest)
    }
}

/// Reads a blob as containerd sends it.
struct Blob {
    stream: Streaming<ReadContentResponse>,
    store: Store,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Blob {
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
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
