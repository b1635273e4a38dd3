//! Images that are files: a folder or an archive with an OCI image layout, or
//! what `docker save` writes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use crate::blobs::Blobs;
use crate::error::ImageError;
use crate::layers::{DEEPEST_INDEX, manifests};
use crate::manifest::{Descriptor, Index, Manifest, by_fitness, null_is_default};
use crate::media;
use crate::programs::{ImageProgram, started};

/// Manifests are kilobytes; what is larger is no manifest.
const LARGEST_DOCUMENT: u64 = 8 << 20;

/// A Wasm layer, and an archive when it is not compressed, in bytes.
const LARGEST_LAYER: u64 = 1 << 30;
const LARGEST_ARCHIVE: u64 = 16 << 30;

/// As many parts as an archive may have.
const MOST_PARTS: usize = 100_000;

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
/// Where `docker save` of before version 25 says what there is.
const DOCKER: &str = "manifest.json";

/// Annotations that name an image in an index, the fullest name first.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// A file or folder with images in it.
pub struct LocalImages {
    path: PathBuf,
    parts: Parts,
}

enum Parts {
    /// In files of this folder.
    Folder(PathBuf),
    /// In this archive, each at an offset and so long, by its path there.
    Archive {
        file: File,
        places: HashMap<String, (u64, u64)>,
    },
}

/// An entry of Docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<String>,
}

impl LocalImages {
    /// Opens the images at `path`; `None` if it is something else.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, ImageError> {
        let failed = |reason| ImageError::Local {
            path: path.display().to_string(),
            reason,
        };
        let parts = match std::fs::metadata(path).map_err(failed)?.is_dir() {
            true => Parts::Folder(path.to_owned()),
            false => match archive(path).map_err(failed)? {
                Some(parts) => parts,
                None => return Ok(None),
            },
        };
        Ok(Some(Self {
            path: path.to_owned(),
            parts,
        }))
    }

    /// The Wasm programs of each image, with its name: its Wasm layers, and the
    /// file that it starts if that is called `.wasm`. Of an image for several
    /// platforms, those for the one that suits this machine best.
    ///
    /// # Errors
    /// Images that make no sense.
    pub fn programs(&self) -> Result<Vec<(String, Vec<ImageProgram>)>, ImageError> {
        let mut all = Vec::new();
        for (name, candidates) in self.images()? {
            let mut found = Vec::new();
            for manifest in candidates {
                found = self.of(&name, &manifest)?;
                if !found.is_empty() {
                    break;
                }
            }
            all.push((name, found));
        }
        Ok(all)
    }

    /// The manifests of each image, those that suit this machine best first.
    fn images(&self) -> Result<Vec<(String, Vec<Manifest>)>, ImageError> {
        if let Some(bytes) = self.json(INDEX)? {
            let index: Index = self.parse(INDEX, &bytes)?;
            let mut entries: BTreeMap<String, Vec<Descriptor>> = BTreeMap::new();
            for entry in index.manifests {
                let name = NAMES.iter().find_map(|name| entry.annotations.get(*name));
                let name = name.unwrap_or(&entry.digest).clone();
                entries.entry(name).or_default().push(entry);
            }
            let mut images = Vec::new();
            for (name, entries) in entries {
                let mut found = Vec::new();
                for entry in by_fitness(entries) {
                    found.extend(manifests(self, &name, &entry, DEEPEST_INDEX)?);
                }
                images.push((name, found));
            }
            return Ok(images);
        }
        let Some(bytes) = self.json(DOCKER)? else {
            return Err(self.malformed("its contents", format!("no {INDEX} and no {DOCKER}")));
        };
        let saved: Vec<Saved> = self.parse(DOCKER, &bytes)?;
        Ok(saved.into_iter().map(Saved::manifest).collect())
    }

    fn of(&self, name: &str, manifest: &Manifest) -> Result<Vec<ImageProgram>, ImageError> {
        let mut programs = Vec::new();
        for layer in &manifest.layers {
            if !media::WASM_LAYERS.contains(&layer.media_type.as_str()) {
                continue;
            }
            let title = layer.annotations.get(media::TITLE);
            programs.push(ImageProgram::File {
                path: title.unwrap_or(&layer.digest).clone(),
                file: self.wasm(&layer.digest)?,
            });
        }
        programs.extend(started(self, name, manifest)?);
        Ok(programs)
    }

    /// A copy of a Wasm layer.
    fn wasm(&self, digest: &str) -> Result<File, ImageError> {
        let failed = |error: io::Error| self.malformed(digest, error.to_string());
        let layer = self.layer(digest)?;
        let mut copy = tempfile::tempfile().map_err(failed)?;
        let mut hashed = Hashed {
            inner: layer.take(LARGEST_LAYER + 1),
            hasher: Sha256::new(),
        };
        let size = io::copy(&mut hashed, &mut copy).map_err(failed)?;
        if size > LARGEST_LAYER {
            return Err(self.malformed(digest, "too large for a program".into()));
        }
        self.check(digest, hashed.hasher)?;
        copy.rewind().map_err(failed)?;
        Ok(copy)
    }

    /// That what was hashed is what `digest` says. Docker's paths say nothing.
    fn check(&self, digest: &str, hasher: Sha256) -> Result<(), ImageError> {
        let Some(expected) = digest.strip_prefix("sha256:") else {
            return Ok(());
        };
        let mut found = String::new();
        for byte in hasher.finalize() {
            found.push_str(&format!("{byte:02x}"));
        }
        match found == expected {
            true => Ok(()),
            false => Err(self.malformed(digest, format!("its digest is sha256:{found}"))),
        }
    }

    fn json(&self, path: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(part) = self.part(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        part.take(LARGEST_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.malformed(path, error.to_string()))?;
        match bytes.len() as u64 > LARGEST_DOCUMENT {
            true => Err(self.malformed(path, format!("larger than {LARGEST_DOCUMENT} bytes"))),
            false => Ok(Some(bytes)),
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&self, path: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| self.malformed(path, error.to_string()))
    }

    fn part(&self, path: &str) -> Result<Option<Box<dyn Read>>, ImageError> {
        let failed = |error: io::Error| self.malformed(path, error.to_string());
        match &self.parts {
            Parts::Folder(folder) => match File::open(folder.join(path)) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(error)),
            },
            Parts::Archive { file, places } => {
                let Some((offset, size)) = places.get(path).copied() else {
                    return Ok(None);
                };
                let file = file.try_clone().map_err(failed)?;
                Ok(Some(Box::new(Section { file, offset }.take(size))))
            }
        }
    }

    fn malformed(&self, what: &str, reason: String) -> ImageError {
        ImageError::Malformed {
            image: self.path.display().to_string(),
            what: what.into(),
            reason,
        }
    }
}

impl Blobs for LocalImages {
    fn document(&self, _: &str, digest: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(bytes) = self.json(&self.place(digest)?)? else {
            return Ok(None);
        };
        let mut hasher = Sha256::new();
        hasher.update(&bytes);
        self.check(digest, hasher)?;
        Ok(Some(bytes))
    }

    fn layer(&self, digest: &str) -> Result<Box<dyn Read>, ImageError> {
        self.part(&self.place(digest)?)?
            .ok_or_else(|| self.malformed(digest, "is not there".into()))
    }
}

impl LocalImages {
    /// Where the blob of a digest is, or what Docker has in place of one: a path
    /// that does not lead out.
    fn place(&self, digest: &str) -> Result<String, ImageError> {
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        let path = match digest.split_once(':') {
            Some((algorithm, hash)) => format!("blobs/{algorithm}/{hash}"),
            None => digest.to_owned(),
        };
        match path.split('/').all(plain) {
            true => Ok(path),
            false => Err(self.malformed(digest, "is no digest".into())),
        }
    }
}

impl Saved {
    fn manifest(self) -> (String, Vec<Manifest>) {
        let part = |media_type: &str, path: &String| Descriptor {
            media_type: media_type.into(),
            digest: path.clone(),
            ..Descriptor::default()
        };
        let manifest = Manifest {
            config: part(media::DOCKER_CONFIG, &self.config),
            layers: self.layers.iter().map(|l| part(media::TAR, l)).collect(),
        };
        let name = self.repo_tags.into_iter().next().unwrap_or(self.config);
        (name, vec![manifest])
    }
}

/// The parts of an archive, which may be compressed; `None` if the file is none.
fn archive(path: &Path) -> io::Result<Option<Parts>> {
    let mut file = File::open(path)?;
    let mut head = [0; 2];
    let length = file.read(&mut head)?;
    file.rewind()?;
    if head[..length] == [0x1f, 0x8b] {
        let mut plain = tempfile::tempfile()?;
        let mut decoder = flate2::read::MultiGzDecoder::new(file).take(LARGEST_ARCHIVE + 1);
        if io::copy(&mut decoder, &mut plain)? > LARGEST_ARCHIVE {
            return Err(io::Error::other("too large when it is not compressed"));
        }
        plain.rewind()?;
        file = plain;
    }
    if !is_tar(&mut file)? {
        return Ok(None);
    }
    let mut places = HashMap::new();
    let mut links = Vec::new();
    for entry in Archive::new(&file).entries_with_seek()? {
        let entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let name = name.trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            EntryType::Regular => {
                places.insert(name, (entry.raw_file_position(), entry.size()));
            }
            // Docker's, from a layer to the same one of another image.
            EntryType::Symlink | EntryType::Link => {
                if let Some(target) = entry.link_name()? {
                    links.push((name, target.to_string_lossy().into_owned()));
                }
            }
            _ => {}
        }
        if places.len() + links.len() > MOST_PARTS {
            return Err(io::Error::other("too many parts"));
        }
    }
    for (name, target) in links {
        let target = target.trim_start_matches("../");
        if let Some(place) = places.get(target).copied() {
            places.insert(name, place);
        }
    }
    let is_one = [LAYOUT, INDEX, DOCKER]
        .iter()
        .any(|name| places.contains_key(*name));
    Ok(is_one.then_some(Parts::Archive { file, places }))
}

/// Whether there is a tar's first header, or the end of an empty one.
fn is_tar(file: &mut File) -> io::Result<bool> {
    let mut head = [0; 512];
    let whole = file.read_exact(&mut head).is_ok();
    file.rewind()?;
    Ok(whole && (&head[257..262] == b"ustar" || head == [0; 512]))
}

/// A file from an offset on, whoever else reads it.
struct Section {
    file: File,
    offset: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
