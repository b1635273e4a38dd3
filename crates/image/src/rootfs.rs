//! Files of an image, opened without ever leaving its root.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::ImageError;
use crate::format::{Format, HEAD};

/// The root file system of a container, by a descriptor of its top directory.
#[derive(Debug)]
pub struct Rootfs {
    top: OwnedFd,
}

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// Open for reading, at its beginning.
    pub file: File,
    /// What it is.
    pub format: Format,
    /// Whether anybody may execute it.
    pub executable: bool,
}

impl Rootfs {
    /// Opens the root file system at `path` on the host.
    ///
    /// # Errors
    /// When there is no such directory.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty())
            .map(|top| Self { top })
            .map_err(|errno| ImageError::Rootfs {
                path: path.display().to_string(),
                source: errno.into(),
            })
    }

    /// The regular file at `path`, a path in the container. Links are followed
    /// as they would be inside: `/` is this root, `..` stops there, and links
    /// that the kernel makes (`/proc/…/fd`) are refused.
    ///
    /// Answers `None` if there is no such file.
    ///
    /// # Errors
    /// When the path is there and is no regular file, cannot be read, or
    /// cannot be resolved.
    pub fn file(&self, path: &Path) -> Result<Option<Found>, ImageError> {
        let failed = |source: io::Error| ImageError::Path {
            path: path.display().to_string(),
            source,
        };
        let how = OpenHow::new()
            // Not waiting for a writer, should it be a FIFO.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let mut file = match openat2(&self.top, path, how) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(errno.into())),
        };
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            let what = if meta.is_dir() { "a directory" } else { "not a regular file" };
            return Err(ImageError::NotRunnable {
                path: path.display().to_string(),
                reason: format!("{what}; a program was expected"),
            });
        }
        let mut head = Vec::with_capacity(HEAD);
        (&file)
            .take(HEAD as u64)
            .read_to_end(&mut head)
            .and_then(|_| file.rewind())
            .map_err(failed)?;
        Ok(Some(Found {
            file,
            format: Format::of(&head),
            executable: meta.permissions().mode() & 0o111 != 0,
        }))
    }
}

/// Where a program of this name is looked for, in order: as execvp(3) does,
/// and first in the working directory, because images of Wasm programs are
/// commonly started by a bare file name.
pub fn candidates(program: &str, path: Option<&str>, cwd: &str) -> Vec<PathBuf> {
    if program.starts_with('/') {
        return vec![PathBuf::from(program)];
    }
    let base = Path::new("/").join(cwd);
    let mut found = vec![base.join(program)];
    if !program.contains('/') {
        found.extend(
            path.unwrap_or_default()
                .split(':')
                .filter(|dir| dir.starts_with('/'))
                .map(|dir| Path::new(dir).join(program)),
        );
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_resolved_inside() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("real.wasm"), b"\0asm\x01\0\0\0").expect("write");
        symlink("/real.wasm", dir.path().join("absolute")).expect("link");
        symlink("../../../real.wasm", dir.path().join("up")).expect("link");
        let rootfs = Rootfs::open(dir.path()).expect("open");
        for path in ["/real.wasm", "/absolute", "/up", "/../real.wasm"] {
            let found = rootfs.file(Path::new(path)).expect(path).expect(path);
            assert_eq!(found.format, Format::Module, "{path}");
        }
    }

    #[test]
    fn a_link_never_reaches_the_host() {
        let outside = tempfile::tempdir().expect("temp dir");
        let secret = outside.path().join("secret.wasm");
        fs::write(&secret, b"\0asm\x01\0\0\0").expect("write");
        let dir = tempfile::tempdir().expect("temp dir");
        symlink(&secret, dir.path().join("app.wasm")).expect("link");
        let rootfs = Rootfs::open(dir.path()).expect("open");
        assert!(rootfs.file(Path::new("/app.wasm")).expect("none").is_none());
    }

    #[test]
    fn what_is_no_regular_file_is_an_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::create_dir(dir.path().join("dir")).expect("dir");
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).expect("fifo");
        let rootfs = Rootfs::open(dir.path()).expect("open");
        assert!(rootfs.file(Path::new("/dir")).is_err());
        assert!(rootfs.file(Path::new("/fifo")).is_err());
    }

    #[test]
    fn names_are_looked_for_as_a_shell_would() {
        let paths = |program, path, cwd| {
            candidates(program, path, cwd)
                .into_iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths("/a", Some("/bin"), "/w"), ["/a"]);
        assert_eq!(paths("./a", Some("/bin"), "/w"), ["/w/./a"]);
        assert_eq!(paths("a", Some("/bin::rel:/usr/bin"), "/w"), ["/w/a", "/bin/a", "/usr/bin/a"]);
        assert_eq!(paths("a", None, ""), ["/a"]);
    }
}
