//! Creations that stand still where a test wants them to.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use wisp_tests::Test;
use wisp_tests::wait::{self, PATIENCE};

/// A hook of a container's spec that waits to be told to go on. Hooks run when
/// half of a container is there.
#[derive(Debug)]
pub struct Stall {
    dir: PathBuf,
}

/// What stands still.
#[derive(Clone, Copy, Debug)]
pub struct Stalled {
    /// The hook's process.
    pub hook: i32,
    /// Who runs it.
    pub creator: i32,
}

impl Stall {
    /// A hook for one container.
    ///
    /// # Errors
    /// When its program cannot be written.
    pub fn new(test: &Test<'_>, name: &str) -> Result<Self> {
        let dir = test.dir().join(name);
        fs::create_dir(&dir)?;
        let path = dir.display();
        let script = format!(
            "#!/bin/sh\n\
             echo $$ $PPID > {path}/new && mv {path}/new {path}/reached\n\
             while [ -d {path} ] && [ ! -e {path}/go ]; do sleep 0.02; done\n"
        );
        let hook = dir.join("hook");
        fs::write(&hook, script)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }

    /// Puts it into a spec, to be run at `moment`.
    pub fn put(&self, spec: &mut Value, moment: &str) {
        spec["hooks"] = json!({ moment: [{ "path": self.dir.join("hook") }] });
    }

    /// Waits until it stands still.
    ///
    /// # Errors
    /// When it never does.
    pub fn reached(&self) -> Result<Stalled> {
        let text = wait::until(PATIENCE, || {
            fs::read_to_string(self.dir.join("reached")).ok()
        })
        .context("the hook was not run")?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || numbers.next().context("a process id");
        Ok(Stalled {
            hook: next()??,
            creator: next()??,
        })
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When that cannot be said.
    pub fn release(&self) -> Result<()> {
        Ok(fs::write(self.dir.join("go"), "")?)
    }
}
