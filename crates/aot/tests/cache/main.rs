//! The cache, with compilers that are shell scripts.

mod degraded;
mod integrity;
mod load;
mod processes;
mod prune;

use std::cell::Cell;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Cursor};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use wisp_aot::{AotError, Artifact, Cache, Compiler, Digest, Key};
use wisp_config::Config;

const PROGRAM: &[u8] = b"a program";

/// Compiles by writing what it read, with a mark.
const COPY: &str = "printf code:; exec /bin/cat";

struct Node {
    dir: TempDir,
    /// How often the program was asked for.
    opened: Cell<u32>,
    timeout: Duration,
}

impl Node {
    fn new() -> Self {
        Self {
            dir: TempDir::new().expect("dir"),
            opened: Cell::new(0),
            timeout: Duration::from_secs(20),
        }
    }

    fn cache_dir(&self) -> PathBuf {
        self.dir.path().join("var/cache")
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.cache.dir = self.cache_dir();
        config.cache.run_dir = self.dir.path().join("run/aot");
        config.compiler.timeout_seconds = self.timeout.as_secs();
        config
    }

    fn cache(&self) -> Cache {
        Cache::from_config(&self.config())
    }

    fn compiler(&self, script: &str) -> Compiler {
        let path = self.dir.path().join("compiler");
        let new = self.dir.path().join("compiler.new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("write");
        fs::set_permissions(&new, Permissions::from_mode(0o755)).expect("chmod");
        fs::rename(&new, &path).expect("rename");
        Compiler::new(path, self.timeout)
    }

    fn load_bytes(&self, script: &str, bytes: &'static [u8]) -> Result<Artifact, AotError> {
        self.cache().load(
            &digest(),
            &mut || {
                self.opened.set(self.opened.get() + 1);
                Ok(Box::new(Cursor::new(bytes)))
            },
            &self.compiler(script),
        )
    }

    fn load(&self, script: &str) -> Result<Artifact, AotError> {
        self.load_bytes(script, PROGRAM)
    }

    fn refused(&self, script: &str) -> String {
        let error = self.load(script).expect_err("no code").to_string();
        assert_eq!(self.files(), Vec::<String>::new(), "something is left");
        error
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.cache_dir()) else {
            return Vec::new();
        };
        entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("name")
            })
            .collect()
    }

    fn code_path(&self) -> PathBuf {
        self.cache_dir().join(code_name())
    }

    /// Keeps the code of another program, whose bytes are `content`.
    fn add(&self, content: &'static [u8]) -> PathBuf {
        let digest = Digest::of(&mut &*content).expect("bytes");
        let artifact = self
            .cache()
            .load(&digest, &mut || Ok(Box::new(content)), &self.compiler(COPY))
            .expect("compiled");
        assert_eq!(artifact.warning, None);
        self.cache_dir().join(Key::new(&digest).file_name())
    }
}

fn code_name() -> String {
    Key::new(&digest()).file_name()
}

/// Makes a file look as if it was last used so long ago.
fn age(path: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    let times = FileTimes::new().set_accessed(then).set_modified(then);
    let file = File::open(path).expect("open");
    file.set_times(times).expect("set times");
}

/// Changes a byte in the middle of a file, in place.
fn flip(path: &Path, at: u64) {
    let mode = fs::metadata(path).expect("file").permissions();
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("chmod");
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("write");
    fs::set_permissions(path, mode).expect("chmod");
}

fn digest() -> Digest {
    Digest::of(&mut Cursor::new(PROGRAM)).expect("bytes")
}

fn content(artifact: &mut Artifact) -> String {
    let path = format!("/proc/self/fd/{}", artifact.file.as_raw_fd());
    let bytes = fs::read(path).expect("read the code");
    // A file that is kept says at its end what it is.
    let code = match bytes.windows(8).position(|window| window == b"wispcode") {
        Some(end) => &bytes[..end],
        None => &bytes,
    };
    String::from_utf8(code.to_vec()).expect("text")
}
