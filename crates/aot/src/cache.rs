//! The directory of compiled programs.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::geteuid;

use crate::compiler::Compiler;
use crate::digest::Digest;
use crate::error::AotError;
use crate::key::Key;

/// Write permission for the group or for others.
const OTHERS_WRITE: u32 = 0o022;

/// Code, ready to be mapped.
#[derive(Debug)]
pub struct Artifact {
    /// Open for reading; only this node's compiler has written it.
    pub file: File,
    /// Whether it was there already.
    pub cached: bool,
    /// Why it is kept nowhere, where that is so: for the log.
    pub warning: Option<String>,
}

/// The directory with the code of all programs that ran on this node.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// The cache in `dir`, which is made when something is to be stored.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The code of the program with `digest`.
    ///
    /// What is not there is compiled: `program` then opens the program's bytes,
    /// which must have that digest. Where the directory cannot be used, the
    /// code stays in memory and the artifact has a warning.
    ///
    /// # Errors
    /// A program that cannot be read, is not what the digest says or cannot be
    /// compiled.
    pub fn load(
        &self,
        digest: &Digest,
        program: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        compiler: &Compiler,
    ) -> Result<Artifact, AotError> {
        let path = self.dir.join(Key::new(digest).file_name());
        if let Ok(file) = self.open(&path) {
            return Ok(Artifact {
                file,
                cached: true,
                warning: None,
            });
        }
        let mut program = program().map_err(|source| AotError::Program {
            digest: digest.clone(),
            source,
        })?;
        let warning = match self.temporary() {
            Ok(temporary) => {
                compiler.run(digest, &mut *program, temporary.as_file())?;
                match self.store(temporary, &path) {
                    Ok(file) => {
                        return Ok(Artifact {
                            file,
                            cached: false,
                            warning: None,
                        });
                    }
                    Err((error, file)) => {
                        return Ok(Artifact {
                            file,
                            cached: false,
                            warning: Some(self.unusable(&error)),
                        });
                    }
                }
            }
            Err(error) => self.unusable(&error),
        };
        let memory = memfd_create(c"wisp-aot", MFdFlags::MFD_CLOEXEC)
            .map(File::from)
            .map_err(|errno| AotError::Io {
                what: "make memory for the code",
                source: errno.into(),
            })?;
        compiler.run(digest, &mut *program, &memory)?;
        Ok(Artifact {
            file: memory,
            cached: false,
            warning: Some(warning),
        })
    }

    fn unusable(&self, error: &io::Error) -> String {
        format!(
            "compiled programs are not kept: cache directory {}: {error}; cache.dir in the \
             settings names another",
            self.dir.display()
        )
    }

    /// Opens the code at `path` if it can only be our own.
    fn open(&self, path: &Path) -> io::Result<File> {
        check_owner(&fs::symlink_metadata(&self.dir)?, "directory")?;
        let file = OpenOptions::new()
            .read(true)
            // Never follows a link, never waits for the other end of a FIFO.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(io::Error::other("not a file with code"));
        }
        check_owner(&metadata, "file")?;
        Ok(file)
    }

    /// A file in the directory that is gone again unless it is stored.
    fn temporary(&self) -> io::Result<tempfile::NamedTempFile> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        let metadata = fs::metadata(&self.dir)?;
        if !metadata.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        check_owner(&metadata, "it")?;
        tempfile::Builder::new()
            .prefix(".compiling-")
            .tempfile_in(&self.dir)
    }

    /// Gives the finished code its name. Whoever opens that name finds all of
    /// it or nothing.
    fn store(
        &self,
        temporary: tempfile::NamedTempFile,
        path: &Path,
    ) -> Result<File, (io::Error, File)> {
        let finished = temporary
            .as_file()
            .set_permissions(Permissions::from_mode(0o400))
            // The name must not survive a power failure that its bytes do not.
            .and_then(|()| temporary.as_file().sync_data());
        if let Err(error) = finished {
            return Err((error, temporary.into_file()));
        }
        match temporary.persist(path) {
            Ok(file) => match self.open(path) {
                // Opened anew, so that nothing that runs can write to it.
                Ok(reopened) => Ok(reopened),
                Err(_) => Ok(file),
            },
            Err(error) => Err((error.error, error.file.into_file())),
        }
    }
}

fn check_owner(metadata: &fs::Metadata, what: &str) -> io::Result<()> {
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
