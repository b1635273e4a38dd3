//! The standard streams of a container: FIFOs, files, logging programs, none.
//!
//! Streams are handed to the process itself; nothing is copied by the daemon.
//! For each FIFO the daemon keeps the end that the process does not use, so
//! that a restart of containerd neither breaks the process's writes nor loses
//! what is in the pipe, while containerd still sees the end of the stream when
//! the last process that writes is gone.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};
use std::time::Duration;

use anyhow::{Context, bail};
use log::warn;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::pipe2;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use wisp_container::Stdio;

use super::reaper::Reaper;
use super::terminal::Terminal;

/// How long a logging program may take to get ready, and to end.
const LOGGER_PATIENCE: Duration = Duration::from_secs(10);

/// Streams as a Create or Exec request names them; empty means none.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// Path of a FIFO.
    pub stdin: String,
    /// Path or URI.
    pub stdout: String,
    /// Path or URI.
    pub stderr: String,
    /// They are a terminal's: stdin and stdout; it has no stderr of its own.
    pub terminal: bool,
}

/// What the daemon keeps of a container's streams.
#[derive(Debug, Default)]
pub struct Kept {
    stdin: Stdin,
    readers: Vec<OwnedFd>,
    /// The other end of some of them, by their place in there.
    writers: Vec<(usize, OwnedFd)>,
    logger: Option<Logger>,
    /// What a terminal is to be connected to, and the terminal then.
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    terminal: Option<Terminal>,
}

/// The daemon's hold on a container's stdin.
#[derive(Debug, Default)]
enum Stdin {
    /// The process sees the end when no client writes any more.
    #[default]
    Free,
    /// Not started: a client may have written everything and be gone already.
    Waiting { reader: OwnedFd, path: PathBuf },
    /// The process sees no end while one client detaches and another attaches.
    Held { _writer: OwnedFd },
}

#[derive(Debug)]
struct Logger {
    pid: i32,
    ended: tokio::sync::oneshot::Receiver<u32>,
}

/// Whose streams they are, for logging programs.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// containerd namespace.
    pub namespace: &'a str,
    /// Container id.
    pub id: &'a str,
}

enum Target {
    None,
    Fifo(PathBuf),
    File(PathBuf),
    Binary { program: PathBuf, args: Vec<String> },
}

impl Streams {
    /// Opens all three.
    ///
    /// # Errors
    /// The stream and path that cannot be opened, or an unknown URI scheme.
    pub async fn open(&self, owner: Owner<'_>, reaper: &Reaper) -> anyhow::Result<(Stdio, Kept)> {
        let mut kept = Kept::default();
        match self.open_into(&mut kept, owner, reaper).await {
            Ok(stdio) => Ok((stdio, kept)),
            Err(error) => {
                kept.close().await;
                Err(error)
            }
        }
    }

    async fn open_into(
        &self,
        kept: &mut Kept,
        owner: Owner<'_>,
        reaper: &Reaper,
    ) -> anyhow::Result<Stdio> {
        if self.terminal {
            return self.open_for_terminal(kept, owner, reaper).await;
        }
        let stdin = match target(&self.stdin).context("stdin")? {
            Target::None => null()?,
            Target::Fifo(path) => {
                // Reading first: opening a FIFO for writing only needs a reader.
                let reader = open(&path, OFlag::O_RDONLY)
                    .with_context(|| format!("stdin: open {}", path.display()))?;
                if is_fifo(&reader)? {
                    kept.stdin = Stdin::Waiting {
                        reader: reader.try_clone().context("stdin")?,
                        path,
                    };
                }
                blocking(&reader)?;
                reader
            }
            _ => bail!("stdin {}: only a FIFO can be read", self.stdin),
        };
        let out = target(&self.stdout).context("stdout")?;
        let err = target(&self.stderr).context("stderr")?;
        let (stdout, stderr) = match (out, err) {
            // One program takes both streams.
            (Target::Binary { program, args }, _) => {
                start_logger(&program, &args, owner, reaper, kept)
                    .await
                    .with_context(|| format!("logging program {}", program.display()))?
            }
            (out, err) => (writer(out, "stdout", kept)?, writer(err, "stderr", kept)?),
        };
        Ok(Stdio {
            stdin,
            stdout,
            stderr,
        })
    }
}

impl Streams {
    /// Opens what a terminal's bytes come from and go to. The process gets the
    /// terminal itself, from whoever makes it.
    async fn open_for_terminal(
        &self,
        kept: &mut Kept,
        owner: Owner<'_>,
        reaper: &Reaper,
    ) -> anyhow::Result<Stdio> {
        match target(&self.stdin).context("stdin")? {
            Target::None => {}
            Target::Fifo(path) => {
                let failed = || format!("stdin: open {}", path.display());
                kept.input = Some(open(&path, OFlag::O_RDONLY).with_context(failed)?);
                // Held at once: nobody at a terminal has said all before Start.
                let writer = open(&path, OFlag::O_WRONLY).with_context(failed)?;
                kept.stdin = Stdin::Held { _writer: writer };
            }
            _ => bail!("stdin {}: only a FIFO can be read", self.stdin),
        }
        kept.output = Some(match target(&self.stdout).context("stdout")? {
            Target::Binary { program, args } => {
                start_logger(&program, &args, owner, reaper, kept)
                    .await
                    .with_context(|| format!("logging program {}", program.display()))?
                    .0
            }
            other => writer(other, "stdout", kept)?,
        });
        Ok(Stdio {
            stdin: null()?,
            stdout: null()?,
            stderr: null()?,
        })
    }
}

impl Kept {
    /// Connects the terminal that has been made, if one was to be.
    ///
    /// # Errors
    /// When it was not made, or one was made that nobody asked for.
    pub fn connect(&mut self, master: Option<OwnedFd>) -> anyhow::Result<()> {
        match (self.output.take(), master) {
            (None, None) => Ok(()),
            (Some(output), Some(master)) => {
                let input = self.input.take();
                self.terminal = Some(Terminal::connect(master, input, output)?);
                Ok(())
            }
            (Some(_), None) => {
                bail!("a terminal was asked for, but the spec's process.terminal is not set")
            }
            (None, Some(_)) => {
                bail!("the spec's process.terminal is set, but no terminal was asked for")
            }
        }
    }

    /// Says how large the terminal's window is; nothing to do without one.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn resize(&self, width: u32, height: u32) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => terminal.resize(width, height),
            None => Ok(()),
        }
    }

    /// Holds stdin open from Start until CloseIO. A client that came and went
    /// before Start has sent all it had: `ctr`, given a short input, closes it
    /// before it knows the task, and never calls CloseIO.
    ///
    /// # Errors
    /// When the FIFO cannot be opened again.
    pub fn hold_stdin(&mut self) -> anyhow::Result<()> {
        if matches!(self.stdin, Stdin::Held { .. }) {
            return Ok(());
        }
        if let Stdin::Waiting { reader, path } = std::mem::take(&mut self.stdin) {
            let mut poll = [PollFd::new(reader.as_fd(), PollFlags::empty())];
            nix::poll::poll(&mut poll, PollTimeout::ZERO).context("poll stdin")?;
            let gone = poll[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLHUP));
            if !gone {
                let writer = open(&path, OFlag::O_WRONLY)
                    .with_context(|| format!("stdin: open {}", path.display()))?;
                self.stdin = Stdin::Held { _writer: writer };
            }
        }
        Ok(())
    }

    /// Lets the process see the end of stdin once no client writes any more.
    pub fn close_stdin(&mut self) {
        self.stdin = Stdin::Free;
    }

    /// Opens for writing what has been written to and not been read.
    pub fn hold_unread(&mut self) {
        for (at, reader) in self.readers.iter().enumerate() {
            if !has_unread(reader) {
                continue;
            }
            let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
            match open(Path::new(&path), OFlag::O_WRONLY) {
                Ok(writer) => self.writers.push((at, writer)),
                Err(errno) => warn!("hold a stream open: {errno}"),
            }
        }
    }

    /// Lets go of what has been read since; answers whether any is left.
    pub fn release_read(&mut self) -> bool {
        let readers = &self.readers;
        self.writers
            .retain(|(at, _)| readers.get(*at).is_some_and(has_unread));
        !self.writers.is_empty()
    }

    /// Lets go of everything; a logging program, whose pipes end with the
    /// container's processes, gets a while to write what it has.
    pub async fn close(mut self) {
        self.stdin = Stdin::Free;
        if let Some(terminal) = self.terminal.take() {
            terminal.close().await;
        }
        self.writers.clear();
        self.readers.clear();
        let Some(Logger { pid, ended }) = self.logger.take() else {
            return;
        };
        let mut ended = ended;
        for signal in [libc::SIGTERM, libc::SIGKILL] {
            if tokio::time::timeout(LOGGER_PATIENCE, &mut ended)
                .await
                .is_ok()
            {
                return;
            }
            warn!("logging program {pid} does not end: signal {signal}");
            if let Err(errno) = wisp_container::cgroup::send(pid, signal) {
                warn!("signal logging program {pid}: {errno}");
            }
        }
    }
}

fn target(text: &str) -> anyhow::Result<Target> {
    if text.is_empty() {
        return Ok(Target::None);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(Target::Fifo(PathBuf::from(text)));
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .with_context(|| format!("{text}: the path is not UTF-8"))?;
    let path = PathBuf::from(path.as_ref());
    if path.is_relative() {
        bail!("{text}: the path must be absolute");
    }
    match scheme {
        "fifo" => Ok(Target::Fifo(path)),
        "file" => Ok(Target::File(path)),
        "binary" => Ok(Target::Binary {
            program: path,
            // As runc's shim does it: each key, then its value, as arguments.
            args: form_urlencoded::parse(query.as_bytes())
                .flat_map(|(key, value)| [key.into_owned(), value.into_owned()])
                .filter(|arg| !arg.is_empty())
                .collect(),
        }),
        other => bail!("{text}: unknown scheme {other:?}; fifo, file and binary are known"),
    }
}

fn writer(target: Target, name: &str, kept: &mut Kept) -> anyhow::Result<OwnedFd> {
    match target {
        Target::None => null(),
        Target::Fifo(path) => {
            let failed = || format!("{name}: open {}", path.display());
            let reader = open(&path, OFlag::O_RDONLY).with_context(failed)?;
            let writer = open(&path, OFlag::O_WRONLY).with_context(failed)?;
            blocking(&writer)?;
            if is_fifo(&reader)? {
                kept.readers.push(reader);
            }
            Ok(writer)
        }
        Target::File(path) => {
            let failed = || format!("{name}: open {}", path.display());
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).with_context(failed)?;
            }
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(&path)
                .with_context(failed)?;
            Ok(file.into())
        }
        Target::Binary { .. } => bail!("{name}: a logging program must be named for stdout"),
    }
}

fn null() -> anyhow::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("open /dev/null")?;
    Ok(file.into())
}

fn open(path: &Path, mode: OFlag) -> Result<OwnedFd, nix::errno::Errno> {
    nix::fcntl::open(
        path,
        mode | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY,
        nix::sys::stat::Mode::empty(),
    )
}

/// Whether a FIFO holds anything.
fn has_unread(reader: &OwnedFd) -> bool {
    let mut poll = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    nix::poll::poll(&mut poll, PollTimeout::ZERO).is_ok()
        && poll[0]
            .revents()
            .is_some_and(|events| events.contains(PollFlags::POLLIN))
}

fn is_fifo(fd: &OwnedFd) -> anyhow::Result<bool> {
    let mode = fstat(fd).context("stat a stream")?.st_mode;
    Ok(SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
}

fn blocking(fd: &OwnedFd) -> anyhow::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).context("set a stream to blocking")?;
    Ok(())
}

/// Starts a logging program by containerd's rules (`core/runtime/v2/README`,
/// "logging"): descriptor 3 is the container's stdout, 4 its stderr, and 5 is
/// closed when the program is ready.
async fn start_logger(
    program: &Path,
    args: &[String],
    owner: Owner<'_>,
    reaper: &Reaper,
    kept: &mut Kept,
) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).context("make a pipe");
    let (out_reader, out_writer) = pipe()?;
    let (err_reader, err_writer) = pipe()?;
    let (ready_reader, ready_writer) = pipe()?;
    // Out of the way of the numbers they are to get.
    let passed = [&out_reader, &err_reader, &ready_writer]
        .map(|fd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(10)).context("pass a pipe"));
    let mut numbers = [0; 3];
    let mut guards = Vec::new();
    for (number, fd) in numbers.iter_mut().zip(passed) {
        *number = fd?;
        // SAFETY: F_DUPFD_CLOEXEC has just made this descriptor for us alone.
        guards.push(unsafe { OwnedFd::from_raw_fd(*number) });
    }
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("CONTAINER_ID", owner.id)
        .env("CONTAINER_NAMESPACE", owner.namespace)
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null());
    // SAFETY: between fork and exec only dup2 is called, which is
    // async-signal-safe, on numbers copied into the closure.
    unsafe {
        command.pre_exec(move || {
            for (number, to) in numbers.into_iter().zip(3..) {
                if libc::dup2(number, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let starting = reaper.starting();
    let child = command.spawn().context("start")?;
    let pid = i32::try_from(child.id()).context("pid")?;
    let logger = Logger {
        pid,
        ended: reaper.exit_of(pid),
    };
    drop(starting);
    kept.logger = Some(logger);
    drop((guards, ready_writer));

    fcntl(&ready_reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("wait for it")?;
    let mut ready = Receiver::from_owned_fd(ready_reader).context("wait for it")?;
    let mut byte = [0];
    match tokio::time::timeout(LOGGER_PATIENCE, ready.read(&mut byte)).await {
        Ok(Ok(_)) => Ok((out_writer, err_writer)),
        Ok(Err(error)) => Err(error).context("wait for it"),
        Err(_) => bail!("not ready within {LOGGER_PATIENCE:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_paths_are_told_apart() {
        assert!(matches!(target(""), Ok(Target::None)));
        assert!(matches!(target("/run/fifo"), Ok(Target::Fifo(_))));
        assert!(matches!(target("fifo:///run/fifo"), Ok(Target::Fifo(_))));
        match target("file:///var/log/a%20b") {
            Ok(Target::File(path)) => assert_eq!(path, Path::new("/var/log/a b")),
            _ => panic!("a file"),
        }
        match target("binary:///bin/logger?tag=a&level=%2Fx&flag=") {
            Ok(Target::Binary { program, args }) => {
                assert_eq!(program, Path::new("/bin/logger"));
                assert_eq!(args, ["tag", "a", "level", "/x", "flag"]);
            }
            _ => panic!("a program"),
        }
    }

    #[test]
    fn unknown_schemes_and_relative_paths_are_named() {
        for bad in ["http://x/y", "file://relative", "binary://"] {
            let Err(error) = target(bad) else {
                panic!("{bad} was taken");
            };
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[tokio::test]
    async fn what_nobody_has_read_is_kept_for_a_reader_to_come() {
        use std::io::{Read, Write};
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        let streams = Streams {
            stdout: path.to_string_lossy().into_owned(),
            ..Streams::default()
        };
        let owner = Owner {
            namespace: "n",
            id: "i",
        };
        let (stdio, mut kept) = streams.open(owner, &Reaper::default()).await.expect("open");
        kept.hold_unread();
        assert!(!kept.release_read(), "nothing was written");
        std::fs::File::from(stdio.stdout)
            .write_all(b"kept")
            .expect("write");
        kept.hold_unread();
        assert!(kept.release_read(), "nothing is held");
        // Opening would wait for ever if nobody wrote.
        let mut reader = std::fs::File::open(&path).expect("reader");
        let mut text = [0; 4];
        reader.read_exact(&mut text).expect("read");
        assert_eq!(&text, b"kept");
        assert!(!kept.release_read(), "all has been read");
        assert_eq!(reader.read(&mut text).expect("the end"), 0);
        kept.close().await;
    }

    #[tokio::test]
    async fn a_fifo_without_a_reader_can_be_written_and_ends_with_its_writer() {
        use std::io::{Read, Write};
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("fifo");
        let streams = Streams {
            stdout: path.to_string_lossy().into_owned(),
            ..Streams::default()
        };
        let owner = Owner {
            namespace: "n",
            id: "i",
        };
        let (stdio, kept) = streams.open(owner, &Reaper::default()).await.expect("open");
        std::fs::File::from(stdio.stdout)
            .write_all(b"kept")
            .expect("write");
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .expect("reader");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read to the end");
        assert_eq!(text, "kept");
        kept.close().await;
    }
}
