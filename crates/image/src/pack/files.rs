use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Addition, PackError};

/// The files of a layer, sorted by path, so that parents come first.
#[derive(Default)]
pub(super) struct Files {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    source: PathBuf,
    kind: Kind,
}

enum Kind {
    Dir,
    File {
        size: u64,
        executable: bool,
    },
    /// A file that is open already: what was looked at is what is packed.
    Program(File),
    Link(PathBuf),
}

impl Files {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Puts the program at `/name`.
    pub(super) fn add_program(
        &mut self,
        name: &str,
        source: &Path,
        file: File,
    ) -> Result<(), PackError> {
        self.insert(name.into(), source, Kind::Program(file))
    }

    pub(super) fn add(&mut self, addition: &Addition) -> Result<(), PackError> {
        let source = &addition.source;
        // What the user names may be a link; links inside it stay links.
        let metadata =
            fs::metadata(source).map_err(|error| PackError::io("open", source, error))?;
        let mut destination = addition.destination.clone();
        if addition.into && !metadata.is_dir() {
            destination = join(&destination, &super::program_name(source)?);
        }
        self.add_parents(&destination, source)?;
        self.add_tree(source, destination, &metadata)
    }

    fn add_tree(
        &mut self,
        source: &Path,
        destination: String,
        metadata: &Metadata,
    ) -> Result<(), PackError> {
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target =
                fs::read_link(source).map_err(|error| PackError::io("read", source, error))?;
            return self.insert(destination, source, Kind::Link(target));
        }
        if kind.is_file() {
            let kind = Kind::File {
                size: metadata.len(),
                executable: metadata.permissions().mode() & 0o111 != 0,
            };
            return self.insert(destination, source, kind);
        }
        if !kind.is_dir() {
            return Err(PackError::Special(source.into()));
        }
        if !destination.is_empty() {
            self.insert(destination.clone(), source, Kind::Dir)?;
        }
        let io_error = |error| PackError::io("read", source, error);
        for entry in fs::read_dir(source).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            let metadata =
                fs::symlink_metadata(&path).map_err(|error| PackError::io("read", &path, error))?;
            let name = super::program_name(&path)?;
            if name.starts_with(".wh.") {
                return Err(PackError::Destination {
                    text: path.display().to_string(),
                    problem: "a name that begins with .wh. would delete a file instead",
                });
            }
            self.add_tree(&path, join(&destination, &name), &metadata)?;
        }
        Ok(())
    }

    fn add_parents(&mut self, path: &str, source: &Path) -> Result<(), PackError> {
        for (at, _) in path.match_indices('/') {
            self.insert(path[..at].into(), source, Kind::Dir)?;
        }
        Ok(())
    }

    fn insert(&mut self, path: String, source: &Path, kind: Kind) -> Result<(), PackError> {
        if path.is_empty() {
            return Err(PackError::NotAFile("/".into()));
        }
        match self.entries.get(&path) {
            None => {}
            Some(Entry {
                kind: Kind::Dir, ..
            }) if matches!(kind, Kind::Dir) => return Ok(()),
            Some(first) => {
                return Err(PackError::Twice {
                    path,
                    first: first.source.clone(),
                    second: source.into(),
                });
            }
        }
        let entry = Entry {
            source: source.into(),
            kind,
        };
        self.entries.insert(path, entry);
        Ok(())
    }

    /// Writes the layer.
    pub(super) fn write(self, output: &mut dyn Write) -> Result<(), PackError> {
        let mut tar = tar::Builder::new(output);
        for (path, entry) in self.entries {
            let written = |result: io::Result<()>| {
                result.map_err(|error| PackError::io("pack", &entry.source, error))
            };
            match entry.kind {
                Kind::Dir => {
                    let mut header = header(tar::EntryType::Directory, 0o755, 0);
                    written(tar.append_data(&mut header, format!("{path}/"), io::empty()))?;
                }
                Kind::Link(target) => {
                    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                    written(tar.append_link(&mut header, path, target))?;
                }
                Kind::Program(mut file) => {
                    let size = file
                        .metadata()
                        .map_err(|error| PackError::io("open", &entry.source, error))?
                        .len();
                    append(&mut tar, &path, &entry.source, &mut file, size, 0o755)?;
                }
                Kind::File { size, executable } => {
                    let mut file = File::open(&entry.source)
                        .map_err(|error| PackError::io("open", &entry.source, error))?;
                    let mode = if executable { 0o755 } else { 0o644 };
                    append(&mut tar, &path, &entry.source, &mut file, size, mode)?;
                }
            }
        }
        tar.finish().map_err(PackError::Write)
    }
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    path: &str,
    source: &Path,
    file: &mut File,
    size: u64,
    mode: u32,
) -> Result<(), PackError> {
    let mut header = header(tar::EntryType::Regular, mode, size);
    let mut exactly = Exactly {
        file,
        left: size,
        grown: false,
    };
    tar.append_data(&mut header, path, &mut exactly)
        .map_err(|error| PackError::io("pack", source, error))?;
    if exactly.left > 0 || exactly.grown {
        return Err(PackError::Changed(source.into()));
    }
    Ok(())
}

/// Reads as many bytes as the header said and notices if there were others.
struct Exactly<'a> {
    file: &'a mut File,
    left: u64,
    grown: bool,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.grown = self.file.read(&mut [0])? > 0;
            return Ok(0);
        }
        let most = buffer.len().min(self.left.try_into().unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// A header without anything that differs between two runs.
pub(super) fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.into()
    } else {
        format!("{parent}/{name}")
    }
}
