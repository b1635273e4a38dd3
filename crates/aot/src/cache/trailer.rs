//! What follows the code in a file of the cache: what it is, and a checksum.
//!
//! The trailer is part of the file, so that it appears and goes with the code.
//! Whoever maps the file never looks at it: the code is an ELF file, whose
//! sections say themselves where they are.
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 8 | `wispcode` |
//! | 8 | 8 | length of the code |
//! | 16 | 8 | length of the program that it was made from |
//! | 24 | 32 | digest of that program |
//! | 56 | 16 | the host's part of the key, in hexadecimal |
//! | 72 | 24 | version of wisp, filled with zeros |
//! | 96 | 24 | version of Wasmtime, filled with zeros |
//! | 120 | 32 | sha256 of the code and all that is above |
//!
//! Numbers are little-endian.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::digest::{Digest, Hasher};
use crate::key::{HOST_LENGTH, Key};
use crate::settings::WASMTIME_VERSION;

/// In bytes.
pub(super) const LENGTH: usize = 152;
const CHECKED: usize = 120;
const VERSION: usize = 24;
const MAGIC: &[u8; 8] = b"wispcode";
const CHUNK: usize = 256 * 1024;

/// What a file of the cache says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// In bytes.
    pub code_size: u64,
    /// In bytes.
    pub program_size: u64,
    /// The version of wisp that stored it.
    pub wisp: String,
    /// The version of Wasmtime that compiled it.
    pub wasmtime: String,
    program: Digest,
    host: String,
}

/// What is wrong with a file of the cache.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is too short")]
    Short,
    #[error("its end is missing")]
    NoTrailer,
    #[error("it has {found} bytes of code instead of {expected}")]
    Length { expected: u64, found: u64 },
    #[error("it is the code of another program or version")]
    Other,
    #[error("its checksum does not fit")]
    Checksum,
}

impl Trailer {
    fn new(key: &Key, code_size: u64, program_size: u64) -> Self {
        Self {
            code_size,
            program_size,
            wisp: env!("CARGO_PKG_VERSION").into(),
            wasmtime: WASMTIME_VERSION.into(),
            program: key.program().clone(),
            host: key.host().into(),
        }
    }

    fn encode(&self) -> [u8; CHECKED] {
        let mut bytes = [0; CHECKED];
        let mut at = 0;
        let mut put = |part: &[u8], room: usize| {
            let length = part.len().min(room);
            bytes[at..at + length].copy_from_slice(&part[..length]);
            at += room;
        };
        put(MAGIC, 8);
        put(&self.code_size.to_le_bytes(), 8);
        put(&self.program_size.to_le_bytes(), 8);
        put(self.program.bytes(), 32);
        put(self.host.as_bytes(), HOST_LENGTH);
        put(self.wisp.as_bytes(), VERSION);
        put(self.wasmtime.as_bytes(), VERSION);
        bytes
    }

    fn decode(bytes: &[u8; LENGTH]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        let mut take = |length: usize| {
            let (part, after) = rest.split_at(length);
            rest = after;
            part
        };
        if take(8) != MAGIC {
            return None;
        }
        Some(Self {
            code_size: u64::from_le_bytes(take(8).try_into().ok()?),
            program_size: u64::from_le_bytes(take(8).try_into().ok()?),
            program: Digest::from_bytes(take(32).try_into().ok()?),
            host: text(take(HOST_LENGTH))?,
            wisp: text(take(VERSION))?,
            wasmtime: text(take(VERSION))?,
        })
    }

    /// What the file with `length` bytes says of itself; the code is not read.
    ///
    /// # Errors
    /// A file that is too short or has no trailer.
    pub(super) fn read(file: &File, length: u64) -> Result<Self, Damage> {
        Ok(Self::with_checksum(file, length)?.0)
    }

    fn with_checksum(file: &File, length: u64) -> Result<(Self, Digest), Damage> {
        let code = length.checked_sub(LENGTH as u64).ok_or(Damage::Short)?;
        let mut bytes = [0; LENGTH];
        file.read_exact_at(&mut bytes, code)?;
        let trailer = Self::decode(&bytes).ok_or(Damage::NoTrailer)?;
        if trailer.code_size != code {
            return Err(Damage::Length {
                expected: trailer.code_size,
                found: code,
            });
        }
        let mut checksum = [0; 32];
        checksum.copy_from_slice(&bytes[CHECKED..]);
        Ok((trailer, Digest::from_bytes(checksum)))
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    let length = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..length]).ok()?;
    text.chars()
        .all(|c| c.is_ascii_graphic())
        .then(|| text.into())
}

/// Copies the code in `from` to the empty file `to` and says after it what it is.
///
/// # Errors
/// Those of the files: no space is left, for one.
pub(super) fn write(from: &File, to: &File, key: &Key, program_size: u64) -> io::Result<()> {
    let mut to = to;
    let mut hasher = Hasher::default();
    let length = each_chunk(from, from.metadata()?.len(), |chunk| {
        hasher.update(chunk);
        to.write_all(chunk)
    })?;
    let trailer = Trailer::new(key, length, program_size).encode();
    hasher.update(&trailer);
    to.write_all(&trailer)?;
    to.write_all(hasher.finish().bytes())
}

/// Reads all of a file and says what it is, if it is the undamaged code of `key`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn verify(file: &File, key: &Key) -> Result<Trailer, Damage> {
    let length = file.metadata()?.len();
    let (trailer, checksum) = Trailer::with_checksum(file, length)?;
    if trailer.program != *key.program() || trailer.host != key.host() {
        return Err(Damage::Other);
    }
    let mut hasher = Hasher::default();
    let checked = trailer.code_size + CHECKED as u64;
    let read = each_chunk(file, checked, |chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    if read != checked || hasher.finish() != checksum {
        return Err(Damage::Checksum);
    }
    Ok(trailer)
}

/// Gives the first `length` bytes of `file` in pieces; answers how many there
/// were. Does not use the file's position, which others may share.
fn each_chunk(
    file: &File,
    length: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let room = usize::try_from(length - at).map_or(CHUNK, |left| left.min(CHUNK));
        match file.read_at(&mut buffer[..room], at) {
            Ok(0) => break,
            Ok(read) => {
                take(&buffer[..read])?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &[u8] = b"code";

    fn key(program: &[u8]) -> Key {
        Key::new(&Digest::of(&mut &*program).expect("bytes"))
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(bytes).expect("write");
        file
    }

    fn stored() -> Vec<u8> {
        let to = file(b"");
        write(&file(CODE), &to, &key(b"program"), 7).expect("written");
        let mut bytes = vec![0; usize::try_from(to.metadata().expect("file").len()).expect("len")];
        to.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    }

    #[test]
    fn a_file_says_what_it_is() {
        let bytes = stored();
        assert_eq!(bytes.len(), CODE.len() + LENGTH);
        assert!(bytes.starts_with(CODE));
        let file = file(&bytes);
        let trailer = verify(&file, &key(b"program")).expect("whole");
        assert_eq!((trailer.code_size, trailer.program_size), (4, 7));
        assert_eq!(trailer.wisp, env!("CARGO_PKG_VERSION"));
        assert_eq!(trailer.wasmtime, WASMTIME_VERSION);
        let read = Trailer::read(&file, bytes.len() as u64).expect("whole");
        assert_eq!(read, trailer);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = stored();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(verify(&file(&bytes), &key(b"program")).is_err(), "{at}");
        }
    }

    #[test]
    fn missing_and_additional_bytes_are_noticed() {
        let bytes = stored();
        for length in 0..bytes.len() {
            assert!(
                verify(&file(&bytes[..length]), &key(b"program")).is_err(),
                "{length}"
            );
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(verify(&file(&longer), &key(b"program")).is_err());
    }

    #[test]
    fn the_code_of_another_program_is_noticed() {
        let error = verify(&file(&stored()), &key(b"another")).expect_err("another");
        assert!(matches!(error, Damage::Other), "{error}");
    }

    #[test]
    fn versions_fit() {
        for version in [env!("CARGO_PKG_VERSION"), WASMTIME_VERSION] {
            assert!(version.len() <= VERSION, "{version}");
        }
    }
}
