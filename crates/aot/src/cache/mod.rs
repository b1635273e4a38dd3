//! The directory of compiled programs. `docs/cache.md` describes it as a whole.

mod contents;
mod lock;
mod memo;
mod owner;
mod place;
mod prune;
mod run;
mod trailer;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use wisp_config::Config;

use crate::compiler::Compiler;
use crate::digest::Digest;
use crate::error::AotError;
use crate::key::Key;
use lock::{Lock, Outcome, Waited};
use place::Opened;
use run::RunDir;

pub use contents::Entry;
pub use memo::Memo;
pub use prune::{Limits, Pruned};
pub use trailer::{Damage, Trailer};

/// How much longer than the compiler's time a process waits for another one
/// that compiles: that one's error is clearer than "it took too long".
const GRACE: Duration = Duration::from_secs(10);

/// Code, ready to be mapped.
#[derive(Debug)]
pub struct Artifact {
    /// Open for reading; only this node's compiler has written it. While this
    /// or a duplicate is open, the code counts as being in use.
    pub file: File,
    /// Whether it was there already.
    pub cached: bool,
    /// What is wrong with the cache, where something is: for the log.
    pub warning: Option<String>,
}

/// The directory with the code of all programs that ran on this node.
#[derive(Debug, Clone)]
pub struct Cache {
    dir: PathBuf,
    run: RunDir,
    limits: Limits,
    patience: Duration,
    lane: Lane,
}

/// Who compiles. Those who start a program wait for each other; nobody who
/// starts one waits for a process that compiles ahead and is last in line for
/// the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    Now,
    Ahead,
}

/// Whose turn it is to compile a program.
enum Turn {
    /// Ours; others wait.
    Ours(Lock),
    /// Nobody's any more: here it is.
    Done(place::Usable),
    /// Everybody's: the directory cannot be used.
    Alone(io::Error),
}

impl Cache {
    /// The cache that the settings describe. Its directory is made when
    /// something is to be stored.
    pub fn from_config(config: &Config) -> Self {
        Self {
            dir: config.cache.dir.clone(),
            run: RunDir::new(&config.cache.run_dir),
            limits: Limits {
                max_size: config.cache.max_size(),
                other_versions: Some(config.cache.other_versions()),
                ..Limits::default()
            },
            patience: config.compiler.timeout() + GRACE,
            lane: Lane::Now,
        }
    }

    /// The same cache for a process that compiles ahead of use, at a low
    /// priority: who starts a program does not wait for it.
    #[must_use]
    pub fn ahead(mut self) -> Self {
        self.lane = Lane::Ahead;
        self
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What goes whenever something is added.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The code of the program with `digest`.
    ///
    /// What is not there is compiled: `program` then opens the program's bytes,
    /// which must have that digest. Of several processes that want the same
    /// code, one compiles and the others wait. Where the directory cannot be
    /// used, the code stays in memory and the artifact has a warning.
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
        let key = Key::new(digest);
        let damage = match self.open(&key) {
            Opened::Usable(found) => return Ok(found.into_artifact(true, None)),
            Opened::Missing => None,
            Opened::Unfit(damage) => Some(format!(
                "compiled program {key} was damaged and is made again: {damage}"
            )),
            Opened::Unusable(error) => {
                let memory = self.compile(digest, program, compiler)?.0;
                return in_memory(memory, self.not_kept(&error));
            }
        };
        let lock = match self.turn(&key)? {
            Turn::Ours(lock) => lock,
            Turn::Done(found) => return Ok(found.into_artifact(true, None)),
            Turn::Alone(error) => {
                let memory = self.compile(digest, program, compiler)?.0;
                return in_memory(memory, joined(damage, self.not_kept(&error)));
            }
        };
        let (memory, size) = match self.compile(digest, program, compiler) {
            Ok(compiled) => compiled,
            Err(error) => {
                if error.is_the_programs() {
                    lock.tell(&Outcome::Failed(error.to_string()));
                }
                return Err(error);
            }
        };
        match self.store(&key, &memory, size) {
            Ok(stored) => {
                drop(lock);
                // What is stored is whole; making room is for the next one.
                let _ = self.prune(&self.limits, false);
                Ok(stored.into_artifact(false, damage))
            }
            Err(error) => {
                lock.tell(&Outcome::NotKept);
                drop(lock);
                in_memory(memory, joined(damage, self.not_kept(&error)))
            }
        }
    }

    /// The code of the program with `digest` once more, after the engine
    /// refused what [`Self::load`] found: that is removed and made again.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn replace(
        &self,
        refused: &Artifact,
        digest: &Digest,
        program: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        compiler: &Compiler,
    ) -> Result<Artifact, AotError> {
        let key = Key::new(digest);
        let refused = refused.file.metadata().ok();
        if let Some(refused) = &refused
            // Who holds the lock makes it anew already.
            && let Ok(Some(_lock)) = Lock::try_take(&self.lock_path(self.lane, &key))
        {
            // Somebody else may have replaced it by now.
            self.remove_if_same(&self.code_path(&key), refused);
        }
        let again = self.load(digest, program, compiler)?;
        let is_the_same = match (again.file.metadata(), refused) {
            (Ok(again), Some(refused)) => is_same(&again, &refused),
            _ => false,
        };
        if again.cached && is_the_same {
            let memory = self.compile(digest, program, compiler)?.0;
            let error = io::Error::other(format!("{key} cannot be removed"));
            return in_memory(memory, self.not_kept(&error));
        }
        Ok(again)
    }

    /// Waits until it is our turn to compile a program, or until it is no
    /// longer necessary.
    fn turn(&self, key: &Key) -> Result<Turn, AotError> {
        let deadline = Instant::now() + self.patience;
        if let Err(error) = self.make_dir() {
            return Ok(Turn::Alone(error));
        }
        loop {
            let outcome = match Lock::wait(&self.lock_path(self.lane, key), deadline) {
                Ok(Waited::Ours(lock)) => {
                    match self.open(key) {
                        Opened::Usable(found) => return Ok(Turn::Done(found)),
                        Opened::Unfit(_) => self.remove(&self.code_path(key)),
                        Opened::Missing => {}
                        Opened::Unusable(error) => return Ok(Turn::Alone(error)),
                    }
                    return Ok(match lock.reserve() {
                        Ok(()) => Turn::Ours(lock),
                        Err(error) => {
                            // There is no room to say so: they find out alike.
                            Turn::Alone(error)
                        }
                    });
                }
                Ok(Waited::Others(outcome)) => outcome,
                Ok(Waited::TimedOut) => return Err(AotError::Waited(self.patience)),
                Err(error) => return Ok(Turn::Alone(error)),
            };
            match outcome {
                Outcome::Failed(text) => return Err(AotError::Shared(text)),
                Outcome::NotKept => {
                    return Ok(Turn::Alone(io::Error::other(
                        "another process could not store the code",
                    )));
                }
                Outcome::Done => {
                    if let Opened::Usable(found) = self.open(key) {
                        return Ok(Turn::Done(found));
                    }
                }
            }
        }
    }

    /// Compiles into memory; answers how large the program was, too.
    fn compile(
        &self,
        digest: &Digest,
        program: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        compiler: &Compiler,
    ) -> Result<(File, u64), AotError> {
        let memory = memfd_create(
            c"wisp-aot",
            MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
        )
        .map(File::from)
        .map_err(|errno| AotError::Io {
            what: "make memory for the code",
            source: errno.into(),
        })?;
        let reader = program().map_err(|source| AotError::Program {
            digest: digest.clone(),
            source,
        })?;
        let mut reader = Counted { reader, count: 0 };
        compiler.run(digest, &mut reader, &memory)?;
        Ok((memory, reader.count))
    }

    fn make_dir(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)?;
        owner::check_dir(&fs::metadata(&self.dir)?)
    }

    fn not_kept(&self, error: &io::Error) -> String {
        format!(
            "compiled programs are not kept: cache directory {}: {error}; cache.dir in the \
             settings names another",
            self.dir.display()
        )
    }

    fn code_path(&self, key: &Key) -> PathBuf {
        self.dir.join(key.file_name())
    }

    /// The file that is locked by who compiles.
    fn lock_path(&self, lane: Lane, key: &Key) -> PathBuf {
        self.dir.join(format!("{LOCK}{}{key}", lane.prefix()))
    }

    /// The file that the holder of that lock, and nobody else, writes to.
    fn temporary_path(&self, lane: Lane, key: &Key) -> PathBuf {
        self.dir.join(format!("{TEMPORARY}{}{key}", lane.prefix()))
    }

    /// Removes what stands in the place of code. What cannot be removed is
    /// found again by who needs the place.
    fn remove(&self, path: &Path) {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            self.remove_if_same(path, &metadata);
        }
    }

    /// Removes the file at `path` if it is still this one; says if it did. The
    /// caller holds the lock of the code.
    fn remove_if_same(&self, path: &Path, metadata: &fs::Metadata) -> bool {
        let is_there = fs::symlink_metadata(path).is_ok_and(|there| is_same(&there, metadata));
        if !is_there || fs::remove_file(path).is_err() {
            return false;
        }
        self.forget(metadata);
        true
    }
}

fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

const LOCK: &str = ".lock-";
const TEMPORARY: &str = ".compiling-";

impl Lane {
    const ALL: [Self; 2] = [Self::Now, Self::Ahead];

    fn prefix(self) -> &'static str {
        match self {
            Self::Now => "",
            Self::Ahead => "ahead-",
        }
    }
}

fn joined(first: Option<String>, second: String) -> String {
    match first {
        Some(first) => format!("{first}; {second}"),
        None => second,
    }
}

/// Code that has no other place, and will not change any more.
fn in_memory(file: File, warning: String) -> Result<Artifact, AotError> {
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| AotError::Io {
        what: "seal the code in memory",
        source: errno.into(),
    })?;
    Ok(Artifact {
        file,
        cached: false,
        warning: Some(warning),
    })
}

/// Counts what is read.
struct Counted {
    reader: Box<dyn Read>,
    count: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}
