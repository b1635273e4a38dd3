//! Images that `wisp pack` would not make: native programs, hostile links,
//! mismatched layers, indexes.

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image being put together.
#[derive(Debug, Default)]
pub struct Image {
    blobs: BTreeMap<String, Vec<u8>>,
    layers: Vec<Value>,
    diff_ids: Vec<String>,
    process: Value,
    annotations: Value,
}

impl Image {
    /// An image without layers that starts `entrypoint`.
    pub fn new(entrypoint: &[&str]) -> Self {
        Self {
            process: json!({
                "Entrypoint": entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            }),
            ..Self::default()
        }
    }

    /// The signal that asks the program to end.
    pub fn stop_signal(mut self, name: &str) -> Self {
        self.process["StopSignal"] = json!(name);
        self
    }

    /// Variables of its environment, beside `PATH`.
    pub fn env(mut self, entries: &[&str]) -> Self {
        if let Some(env) = self.process["Env"].as_array_mut() {
            env.extend(entries.iter().map(|entry| json!(entry)));
        }
        self
    }

    /// The labels in its configuration.
    pub fn labels(mut self, labels: Value) -> Self {
        self.process["Labels"] = labels;
        self
    }

    /// The annotations of its manifest, and of all that leads there.
    pub fn annotations(mut self, annotations: Value) -> Self {
        self.annotations = annotations;
        self
    }

    /// Adds a layer of files.
    ///
    /// # Errors
    /// When an entry does not fit the tar format.
    pub fn files(mut self, entries: &[Entry<'_>]) -> Result<Self> {
        let layer = tar_of(entries)?;
        let digest = self.blob(layer);
        self.diff_ids.push(digest.clone());
        self.layers.push(self.descriptor(TAR, &digest));
        Ok(self)
    }

    /// Adds a Wasm layer. Only what containerd unpacks is a file system
    /// difference, so the layer has no diff id.
    pub fn wasm(mut self, media_type: &str, title: Option<&str>, bytes: Vec<u8>) -> Self {
        let digest = self.blob(bytes);
        let mut descriptor = self.descriptor(media_type, &digest);
        if let Some(title) = title {
            descriptor["annotations"] = json!({ "org.opencontainers.image.title": title });
        }
        self.layers.push(descriptor);
        self
    }

    /// Writes the image as a tar that `ctr image import` names `reference`. If
    /// `index` is set, the reference names an index that has the image in it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(mut self, reference: &str, index: bool, output: &Path) -> Result<()> {
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": self.process,
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
        }))?;
        let config = self.blob(config);
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.descriptor(CONFIG, &config),
            "layers": self.layers,
            "annotations": self.annotations,
        }))?;
        let manifest = self.blob(manifest);
        let mut target = self.descriptor(MANIFEST, &manifest);
        target["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        if index {
            let inner = serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [target],
            }))?;
            let inner = self.blob(inner);
            target = self.descriptor(INDEX, &inner);
        }
        target["annotations"] = match self.annotations {
            Value::Object(_) => self.annotations,
            _ => json!({}),
        };
        target["annotations"]["io.containerd.image.name"] = json!(reference);
        target["annotations"]["org.opencontainers.image.ref.name"] = json!(reference);
        let top = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [target] }))?;

        let mut tar = tar::Builder::new(File::create(output)?);
        append(
            &mut tar,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
            0o644,
        )?;
        append(&mut tar, "index.json", &top, 0o644)?;
        for (digest, bytes) in &self.blobs {
            let path = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
            append(&mut tar, &path, bytes, 0o644)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }

    fn blob(&mut self, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    fn descriptor(&self, media_type: &str, digest: &str) -> Value {
        let size = self.blobs.get(digest).map_or(0, Vec::len);
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }
}

/// Something in a layer.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A file with its mode and content.
    File(&'a str, u32, &'a [u8]),
    /// A directory.
    Dir(&'a str),
    /// A symbolic link and what it points to.
    Link(&'a str, &'a str),
}

/// A static busybox with the applets the tests use.
///
/// # Errors
/// When this machine has no static busybox.
pub fn busybox(reference: &str, output: &Path) -> Result<()> {
    let program = fs::read("/bin/busybox")?;
    let mut entries = vec![
        Entry::Dir("bin"),
        Entry::Dir("tmp"),
        Entry::File("bin/busybox", 0o755, &program),
    ];
    let applets = [
        "sh", "echo", "cat", "sleep", "true", "false", "ls", "id", "kill", "yes", "head", "mkdir",
        "mount", "seq", "dd", "env", "pwd", "touch", "grep", "test", "tty", "stty",
    ];
    let links: Vec<String> = applets.iter().map(|name| format!("bin/{name}")).collect();
    entries.extend(links.iter().map(|link| Entry::Link(link, "busybox")));
    Image::new(&[])
        .files(&entries)?
        .write(reference, false, output)
}

/// The digest of some bytes, as images write it.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// This machine's architecture by its OCI name.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn tar_of(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        match entry {
            Entry::File(path, mode, bytes) => append(&mut tar, path, bytes, *mode)?,
            Entry::Dir(path) => {
                let mut header = header(0o755, 0, tar::EntryType::Directory);
                tar.append_data(&mut header, path, std::io::empty())?;
            }
            Entry::Link(path, target) => {
                let mut header = header(0o777, 0, tar::EntryType::Symlink);
                tar.append_link(&mut header, path, target)?;
            }
        }
    }
    Ok(tar.into_inner()?)
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header(mode, bytes.len() as u64, tar::EntryType::Regular);
    tar.append_data(&mut header, path, bytes)?;
    Ok(())
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
