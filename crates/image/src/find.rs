//! A file among the layers of an image, found without unpacking them.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

/// What marks a file of the layers below as removed.
const WHITEOUT: &str = ".wh.";
/// What marks a directory as hiding all that the layers below have in it.
const OPAQUE: &str = ".wh..wh..opq";
/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
/// In bytes. The compiler takes less than that.
const LARGEST_FILE: u64 = 1 << 30;

/// Gives the bytes of a layer, by its place in the image.
pub(crate) type Open<'a> = dyn FnMut(usize) -> io::Result<Box<dyn Read>> + 'a;

/// The file at `path` in an image of so many `layers`, the lowest first: a copy
/// that has no name, at its beginning. None if there is no such file.
///
/// # Errors
/// A layer that cannot be read, or links without end.
pub(crate) fn find(path: &Path, layers: usize, open: &mut Open<'_>) -> io::Result<Option<File>> {
    let mut path = normal(path);
    'links: for _ in 0..MOST_LINKS {
        for layer in (0..layers).rev() {
            match scan(&path, open(layer)?)? {
                Scanned::File(file) => return Ok(Some(file)),
                Scanned::Link(target) => {
                    path = target;
                    continue 'links;
                }
                Scanned::Gone => return Ok(None),
                Scanned::Absent => {}
            }
        }
        return Ok(None);
    }
    Err(io::Error::other(format!(
        "{}: more than {MOST_LINKS} links",
        path.display()
    )))
}

/// What one layer says of a path.
enum Scanned {
    File(File),
    /// It is to be looked for at another path.
    Link(PathBuf),
    /// There is no file, whatever the layers below have.
    Gone,
    /// The layers below are to be asked.
    Absent,
}

fn scan(path: &Path, layer: Box<dyn Read>) -> io::Result<Scanned> {
    let mut found = Scanned::Absent;
    let mut hidden = false;
    for entry in Archive::new(plain(layer)?).entries()? {
        let mut entry = entry?;
        let name = normal(&entry.path()?);
        if name == path {
            found = take(&mut entry, path)?;
        } else if let Ok(rest) = path.strip_prefix(&name) {
            // A directory on the way, or what stands in its place.
            match entry.header().entry_type() {
                EntryType::Directory => {}
                EntryType::Symlink => {
                    found = Scanned::Link(target(&entry, &name)?.join(rest));
                }
                _ => found = Scanned::Gone,
            }
        } else {
            hidden |= hides(&name, path);
        }
    }
    Ok(match found {
        Scanned::Absent if hidden => Scanned::Gone,
        found => found,
    })
}

fn take(entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<Scanned> {
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let size = entry.size();
            if size > LARGEST_FILE {
                return Err(io::Error::other(format!(
                    "{}: {size} bytes are too many for a program",
                    path.display()
                )));
            }
            let mut file = tempfile::tempfile()?;
            io::copy(entry, &mut file)?;
            file.rewind()?;
            Ok(Scanned::File(file))
        }
        EntryType::Symlink => Ok(Scanned::Link(target(entry, path)?)),
        // Names a file of the image by its full path.
        EntryType::Link => match entry.link_name()? {
            Some(name) if normal(&name) != path => Ok(Scanned::Link(normal(&name))),
            _ => Ok(Scanned::Gone),
        },
        _ => Ok(Scanned::Gone),
    }
}

/// Where the symbolic link at `path` leads to.
fn target(entry: &Entry<'_, impl Read>, path: &Path) -> io::Result<PathBuf> {
    let name = entry
        .link_name()?
        .ok_or_else(|| io::Error::other(format!("{}: a link to nothing", path.display())))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    Ok(normal(&dir.join(name)))
}

/// Whether an entry of that name hides `path` of the layers below.
fn hides(name: &Path, path: &Path) -> bool {
    let (Some(dir), Some(file)) = (name.parent(), name.file_name().and_then(|n| n.to_str())) else {
        return false;
    };
    if file == OPAQUE {
        return path.starts_with(dir);
    }
    file.strip_prefix(WHITEOUT)
        .is_some_and(|removed| path.starts_with(dir.join(removed)))
}

/// A path from the root, without `.` and `..`; none of those leads out.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

/// A layer's tar, whatever it is compressed with.
fn plain(layer: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    let mut layer = BufReader::with_capacity(64 * 1024, layer);
    let mut head = Vec::new();
    layer.by_ref().take(4).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(layer);
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(whole);
            Box::new(decoder.map_err(io::Error::other)?)
        }
        _ => Box::new(whole),
    })
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
