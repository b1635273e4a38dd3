//! Running a container, in the foreground by `ctr` or step by step by the API.

use crate::api::Streams;
use crate::command;
use crate::fifo::{self, Reader};
use crate::test::Test;
use crate::wait::PATIENCE;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

pub use crate::command::Ended;

/// The runtime under test.
pub const WISP: &str = "io.containerd.wisp.v1";
/// The runtime everybody has, for comparison.
pub const RUNC: &str = "io.containerd.runc.v2";

/// A container that is to run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Run<'t, 'n> {
    test: &'t Test<'n>,
    image: String,
    flags: Vec<String>,
    args: Vec<String>,
    runtime: String,
    patience: Duration,
}

impl<'t, 'n> Run<'t, 'n> {
    pub(crate) fn new(test: &'t Test<'n>, image: &str) -> Self {
        Self {
            test,
            image: image.to_owned(),
            flags: Vec::new(),
            args: Vec::new(),
            runtime: WISP.to_owned(),
            patience: Duration::from_secs(120),
        }
    }

    /// Arguments after the image's entrypoint.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Flags for `ctr run`.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// An environment variable.
    pub fn env(self, name: &str, value: &str) -> Self {
        self.flags(&["--env", &format!("{name}={value}")])
    }

    /// An annotation of the container's spec.
    pub fn annotation(self, name: &str, value: &str) -> Self {
        self.flags(&["--annotation", &format!("{name}={value}")])
    }

    /// The host's network.
    pub fn net_host(self) -> Self {
        self.flags(&["--net-host"])
    }

    /// Another runtime than wisp.
    pub fn runtime(mut self, name: &str) -> Self {
        self.runtime = name.to_owned();
        self
    }

    /// A configuration of wisp for this container alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn config(self, text: &str) -> Result<Self> {
        let path = self.test.dir().join("config.toml");
        std::fs::write(&path, text)?;
        Ok(self.flags(&["--runtime-config-path", &path.display().to_string()]))
    }

    fn tail(&self, id: &str) -> Vec<String> {
        let mut tail = self.flags.clone();
        tail.extend(["--runtime".to_owned(), self.runtime.clone()]);
        // 1.6 takes the container's own `-c` for a flag of `ctr container create`.
        tail.extend(["--".to_owned(), self.image.clone(), id.to_owned()]);
        if !self.args.is_empty() {
            tail.extend(self.test.program(&self.image));
        }
        tail.extend(self.args.clone());
        tail
    }

    /// Runs it in the foreground with `ctr run --rm`.
    ///
    /// # Errors
    /// When it does not end. A failing container is no error here.
    pub fn ctr(self) -> Result<Ended> {
        command::run(&mut self.command(), Vec::new(), self.patience)
    }

    /// The `ctr run --rm` that would run it, with a new id.
    pub fn command(&self) -> Command {
        let id = self.test.new_id();
        let mut ctr = self.test.node.ctr(self.test.namespace());
        ctr.args(["run", "--rm", "--fifo-dir"])
            .arg(self.test.dir())
            .args(self.tail(&id));
        ctr
    }

    /// Creates the container, and no task yet; answers its id.
    ///
    /// # Errors
    /// What `ctr` said.
    pub fn create(self) -> Result<String> {
        let id = self.test.new_id();
        let mut args = vec!["container".to_owned(), "create".to_owned()];
        args.extend(self.tail(&id));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.test.ctr_ok(&args)?;
        Ok(id)
    }

    /// Creates it with its spec changed, and no task yet; answers its id.
    ///
    /// # Errors
    /// What `ctr` or the API said.
    pub fn create_with(self, edit: impl FnOnce(&mut Value)) -> Result<String> {
        let test = self.test;
        let id = self.create()?;
        test.api()?.edit_spec(&id, edit)?;
        Ok(id)
    }

    /// Creates and starts it, with its output going to FIFOs.
    ///
    /// # Errors
    /// What containerd or the shim said.
    pub fn start(self) -> Result<Running<'t, 'n>> {
        let test = self.test;
        let id = self.create()?;
        Running::start(test, &id)
    }
}

impl Run<'_, '_> {
    /// Runs it with `input` as its whole standard input, through a FIFO. Not by
    /// `ctr`: on a busy machine that loses the end of a long input now and then,
    /// with runc as well.
    ///
    /// # Errors
    /// What containerd or the shim said.
    pub fn fed(self, input: &[u8]) -> Result<Ended> {
        let test = self.test;
        let id = self.create()?;
        let path = test.dir().join(format!("{id}-stdin"));
        let mut stdin = fifo::writer(&path)?;
        let running = Running::start_with_stdin(test, &id, path.display().to_string())?;
        stdin.write_all(input)?;
        drop(stdin);
        test.api()?.close_stdin(&id)?;
        running.finish()
    }
}

/// A container that runs in the background.
#[derive(Debug)]
pub struct Running<'t, 'n> {
    test: &'t Test<'n>,
    /// Its id.
    pub id: String,
    /// The process id of its first process.
    pub pid: u32,
    /// Its standard output.
    pub stdout: Reader,
    /// Its standard error.
    pub stderr: Reader,
}

impl<'t, 'n> Running<'t, 'n> {
    /// Creates and starts the task of container `id`. If that fails, task and
    /// container are removed.
    ///
    /// # Errors
    /// What containerd or the shim said.
    pub fn start(test: &'t Test<'n>, id: &str) -> Result<Self> {
        Self::start_with_stdin(test, id, String::new())
    }

    /// The same with a FIFO as its standard input.
    ///
    /// # Errors
    /// What containerd or the shim said.
    pub fn start_with_stdin(test: &'t Test<'n>, id: &str, stdin: String) -> Result<Self> {
        let stdout = Reader::new(&test.dir().join(format!("{id}-stdout")))?;
        let stderr = Reader::new(&test.dir().join(format!("{id}-stderr")))?;
        let streams = Streams {
            stdin,
            stdout: stdout.path(),
            stderr: stderr.path(),
            ..Streams::default()
        };
        let api = test.api()?;
        let started = api.create(id, &streams).and_then(|_| {
            api.start(id).inspect_err(|_| {
                let _ = api.delete(id);
            })
        });
        match started {
            Ok(pid) => Ok(Self {
                test,
                id: id.to_owned(),
                pid,
                stdout,
                stderr,
            }),
            Err(error) => {
                let _ = test.ctr(&["container", "rm", id]);
                Err(error)
            }
        }
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// What containerd or the shim said.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        self.test.api()?.kill(&self.id, signal as i32, false)
    }

    /// Waits for its end; answers the exit code. It is still to be removed.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&self) -> Result<u32> {
        self.test.api()?.wait(&self.id)
    }

    /// Waits for its end and removes it; answers how it ended.
    ///
    /// # Errors
    /// When it does not end or cannot be removed.
    pub fn finish(self) -> Result<Ended> {
        let code = self.wait()?;
        let deleted = self.test.api()?.delete(&self.id)?;
        ensure!(code == deleted, "wait said {code}, delete {deleted}");
        self.test.ctr_ok(&["container", "rm", &self.id])?;
        Ok(Ended {
            code: i32::try_from(code)?,
            stdout: self.stdout.to_end(PATIENCE)?,
            stderr: self.stderr.to_end(PATIENCE)?,
        })
    }

    /// Sends a signal, waits and removes; answers how it ended.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn end_by(self, signal: Signal) -> Result<Ended> {
        self.kill(signal)?;
        self.finish()
    }
}
