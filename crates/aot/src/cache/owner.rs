//! Who can have made a file or directory.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::geteuid;

/// Write permission for the group or for others.
const OTHERS_WRITE: u32 = 0o022;

/// Whether nobody but root and ourselves can change it.
///
/// # Errors
/// Who else can.
pub(super) fn check(metadata: &Metadata, what: &str) -> io::Result<()> {
    let owner = metadata.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        return Err(io::Error::other(format!(
            "{what} belongs to user {owner}, who could change it"
        )));
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        return Err(io::Error::other(format!(
            "{what} can be written by others (mode {:03o})",
            metadata.mode() & 0o777
        )));
    }
    Ok(())
}

/// The same for a directory, which must be one.
///
/// # Errors
/// Who else can change it.
pub(super) fn check_dir(metadata: &Metadata) -> io::Result<()> {
    if !metadata.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    check(metadata, "it")
}
