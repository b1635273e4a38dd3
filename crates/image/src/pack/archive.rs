use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::PackError;
use super::files::header;
use super::reference::has_tag;

/// An OCI image layout being put together. Blobs are in memory if they are
/// small and in unnamed temporary files if they are layers.
#[derive(Default)]
pub(super) struct Archive {
    blobs: BTreeMap<String, Blob>,
}

enum Blob {
    Memory(Vec<u8>),
    Spool(File, u64),
}

/// Where in the archive the blob of a digest is.
pub(super) fn path_of(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

impl Archive {
    /// Adds a document and gives its descriptor.
    pub(super) fn json(&mut self, media_type: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let digest = name(Sha256::digest(&bytes).as_slice());
        let descriptor = descriptor(media_type, &digest, bytes.len() as u64);
        self.blobs.insert(digest, Blob::Memory(bytes));
        descriptor
    }

    /// Adds what `fill` writes and gives its descriptor.
    pub(super) fn spool(
        &mut self,
        media_type: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), PackError>,
    ) -> Result<Value, PackError> {
        let mut spool = Spool {
            file: BufWriter::new(tempfile::tempfile().map_err(PackError::Write)?),
            hash: Sha256::new(),
            size: 0,
        };
        fill(&mut spool)?;
        let file = spool
            .file
            .into_inner()
            .map_err(|error| PackError::Write(error.into_error()))?;
        let digest = name(spool.hash.finalize().as_slice());
        let descriptor = descriptor(media_type, &digest, spool.size);
        self.blobs.insert(digest, Blob::Spool(file, spool.size));
        Ok(descriptor)
    }

    /// Writes the layout with `target` as the image called `reference`, and
    /// with the list that `docker load` reads if `docker` describes an image.
    pub(super) fn write(
        self,
        reference: &str,
        mut target: Value,
        docker: Option<Value>,
        output: &mut dyn Write,
    ) -> Result<(), PackError> {
        // containerd reads the first, most other tools the second.
        target["annotations"] = json!({
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": crate::media::INDEX,
            "manifests": [target],
        });
        let mut tar = tar::Builder::new(output);
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", index.to_string().as_bytes())?;
        if let Some(mut docker) = docker {
            if has_tag(reference) {
                docker["RepoTags"] = json!([reference]);
            }
            let list = json!([docker]).to_string();
            append(&mut tar, "manifest.json", list.as_bytes())?;
        }
        for (digest, blob) in self.blobs {
            let path = path_of(&digest);
            match blob {
                Blob::Memory(bytes) => append(&mut tar, &path, &bytes)?,
                Blob::Spool(mut file, size) => {
                    file.rewind().map_err(PackError::Write)?;
                    append_from(&mut tar, &path, &mut file, size)?;
                }
            }
        }
        tar.finish().map_err(PackError::Write)?;
        tar.into_inner()
            .and_then(|output| output.flush())
            .map_err(PackError::Write)
    }
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    mut bytes: &[u8],
) -> Result<(), PackError> {
    let size = bytes.len() as u64;
    append_from(tar, path, &mut bytes, size)
}

fn append_from(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    content: &mut dyn Read,
    size: u64,
) -> Result<(), PackError> {
    let mut header = header(tar::EntryType::Regular, 0o644, size);
    tar.append_data(&mut header, path, content)
        .map_err(PackError::Write)
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn name(hash: &[u8]) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A temporary file that hashes what goes into it.
struct Spool {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
