//! A compiler of its own for each test, with settings.

use std::fs::{self, File};
use std::io::{Cursor, Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wisp_aot::{AotError, Compiler, Digest};
use wisp_config::Config;

use crate::process;

pub struct Node {
    dir: TempDir,
    pub config: Config,
}

impl Node {
    /// With these settings, and a `wisp` whose processes are told from those of
    /// other tests by its path.
    pub fn new(edit: impl FnOnce(&mut wisp_config::Compiler)) -> Self {
        let dir = TempDir::new().expect("dir");
        // Other users run it, too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let (built, wisp) = (env!("CARGO_BIN_EXE_wisp"), dir.path().join("wisp"));
        if fs::hard_link(built, &wisp).is_err() {
            fs::copy(built, &wisp).expect("copy");
        }
        let mut config = Config::default();
        config.compiler.path = Some(wisp);
        edit(&mut config.compiler);
        Self { dir, config }
    }

    pub fn wisp(&self) -> PathBuf {
        self.dir.path().join("wisp")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Compiles through the shim's own way.
    pub fn compile(&self, program: &[u8]) -> Result<Vec<u8>, AotError> {
        let digest = Digest::of(&mut Cursor::new(program)).expect("bytes");
        let result = self.feed(&digest, &mut Cursor::new(program));
        self.nothing_runs();
        result
    }

    pub fn feed(&self, digest: &Digest, program: &mut dyn Read) -> Result<Vec<u8>, AotError> {
        let mut file: File = tempfile::tempfile_in(self.dir.path()).expect("file");
        Compiler::from_config(&self.config).run(digest, program, &file)?;
        file.rewind().expect("rewind");
        let mut code = Vec::new();
        file.read_to_end(&mut code).expect("read");
        Ok(code)
    }

    /// The sentence that a program is refused with. It must have all of `words`.
    pub fn refused(&self, program: &[u8], words: &[&str]) -> String {
        let text = match self.compile(program) {
            Ok(code) => panic!("compiled to {} bytes", code.len()),
            Err(error) => error.to_string(),
        };
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!text.contains(char::is_control), "{text:?}");
        text
    }

    /// Waits until no compiler runs: its death may follow that of its watcher.
    pub fn nothing_runs(&self) {
        let path = self.wisp();
        process::until("compilers are gone", || {
            process::all().iter().all(|process| {
                process.is_gone() || !process.line().contains(&*path.to_string_lossy())
            })
        });
    }
}
