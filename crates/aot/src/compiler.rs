//! Runs the compiler, a program of its own, over one guest program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wisp_config::Config;

use crate::digest::{Digest, Hasher};
use crate::error::AotError;
use crate::limits::CompilerLimits;

/// What the compiler is called, beside our own executable.
const NAME: &str = "wisp";

/// How much of the compiler's words is kept.
const WORDS: usize = 8 * 1024;

/// The program that compiles, and what it may use.
///
/// It is run as `<path> compile` with its limits as arguments and an empty
/// environment: Wasm on stdin, code to stdout, what is wrong with the Wasm as
/// text on stderr. It confines itself; one that does not know how to, because
/// it is of another version, does not know these arguments either.
#[derive(Debug, Clone)]
pub struct Compiler {
    path: PathBuf,
    timeout: Duration,
    limits: CompilerLimits,
}

impl Compiler {
    /// The compiler at `path`, with the limits of the default settings.
    pub fn new(path: PathBuf, timeout: Duration) -> Self {
        Self {
            path,
            timeout,
            limits: CompilerLimits::default(),
        }
    }

    /// The compiler that the settings name, else `wisp` beside the running
    /// executable.
    pub fn from_config(config: &Config) -> Self {
        let path = config.compiler.path.clone().unwrap_or_else(|| {
            std::env::current_exe()
                .ok()
                .and_then(|exe| Some(exe.parent()?.join(NAME)))
                .unwrap_or_else(|| NAME.into())
        });
        Self {
            path,
            timeout: config.compiler.timeout(),
            limits: CompilerLimits::from_config(config),
        }
    }

    /// Compiles what `program` gives, which must have `digest`, into `code`.
    ///
    /// # Errors
    /// A program that cannot be read, is not what the digest says, cannot be
    /// compiled or not within the limits; a compiler that cannot be run.
    pub fn run(
        &self,
        digest: &Digest,
        program: &mut dyn Read,
        code: &File,
    ) -> Result<(), AotError> {
        let stdout = code
            .try_clone()
            .map_err(io_error("pass the code file on"))?;
        let child = Command::new(&self.path)
            .arg("compile")
            .arg(confinement())
            .args(self.limits.arguments())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| AotError::Start {
                path: self.path.clone(),
                source,
            })?;
        let mut run = Run::new(child, Instant::now() + self.timeout)
            .map_err(io_error("watch the compiler"))?;
        let found = run.feed(digest, program, self.timeout, self.limits.program_mib)?;
        if found != *digest {
            return Err(AotError::Mismatch {
                expected: digest.clone(),
                found,
            });
        }
        let status = run.finish(self.timeout)?;
        if let Some(signal) = status.signal() {
            return Err(AotError::Killed(signal));
        }
        if !status.success() {
            let words = one_line(&run.words);
            return Err(AotError::Compile(if words.is_empty() {
                format!("the compiler failed without a word: {status}")
            } else {
                words
            }));
        }
        let length = code.metadata().map_err(io_error("look at the code"))?.len();
        if length == 0 {
            return Err(AotError::NoCode(self.path.clone()));
        }
        Ok(())
    }
}

/// How much of its confinement the compiler must have. Whoever can create
/// containers can also create namespaces, so a shim's compiler has all of it or
/// does not compile; a user of `wisp run` has what the system gives to users.
fn confinement() -> &'static str {
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN) {
        Ok(false) => "--confine=possible",
        Ok(true) | Err(_) => "--confine=full",
    }
}

/// The compiler's words without what could play tricks on a terminal or a log:
/// names in them are the program's.
fn one_line(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let lines: Vec<&str> = words.split_whitespace().collect();
    lines
        .join(" ")
        .chars()
        .filter(|character| !character.is_control())
        .collect()
}

fn io_error<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> AotError {
    move |source| AotError::Io {
        what,
        source: source.into(),
    }
}

/// A compiler at work. Dropped before it ended, it is killed.
struct Run {
    child: Child,
    /// Readable once the child has ended.
    ended: OwnedFd,
    stdin: Option<ChildStdin>,
    stderr: Option<ChildStderr>,
    words: Vec<u8>,
    deadline: Instant,
    reaped: bool,
}

impl Run {
    fn new(mut child: Child, deadline: Instant) -> io::Result<Self> {
        let stdin = child.stdin.take();
        let stderr = child.stderr.take();
        let watched = || {
            if let Some(stdin) = &stdin {
                nonblocking(stdin)?;
            }
            if let Some(stderr) = &stderr {
                nonblocking(stderr)?;
            }
            pidfd(&child)
        };
        let ended = match watched() {
            Ok(ended) => ended,
            Err(error) => {
                // Nothing to do about failures here: there is an error already.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Self {
            child,
            ended,
            stdin,
            stderr,
            words: Vec::new(),
            deadline,
            reaped: false,
        })
    }

    /// Writes the whole program to the compiler and gives its digest.
    fn feed(
        &mut self,
        digest: &Digest,
        program: &mut dyn Read,
        timeout: Duration,
        most_mib: u64,
    ) -> Result<Digest, AotError> {
        let mut hasher = Hasher::default();
        let mut room = most_mib.saturating_mul(1 << 20);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = match program.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(AotError::Program {
                        digest: digest.clone(),
                        source,
                    });
                }
            };
            room = u64::try_from(length)
                .ok()
                .and_then(|length| room.checked_sub(length))
                .ok_or(AotError::TooLarge(most_mib))?;
            hasher.update(&buffer[..length]);
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                // Bytes that the compiler does not want are still checked.
                let Some(stdin) = &mut self.stdin else { break };
                match stdin.write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.wait(timeout)?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
                    Err(source) => return Err(io_error("feed the compiler")(source)),
                }
            }
        }
        self.stdin = None;
        Ok(hasher.finish())
    }

    fn finish(&mut self, timeout: Duration) -> Result<std::process::ExitStatus, AotError> {
        while !self.wait(timeout)? {}
        self.listen()?;
        let status = self
            .child
            .wait()
            .map_err(io_error("wait for the compiler"))?;
        self.reaped = true;
        Ok(status)
    }

    /// Waits until the compiler takes input, speaks or ends, and says whether
    /// it ended.
    fn wait(&mut self, timeout: Duration) -> Result<bool, AotError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AotError::Timeout(timeout));
        }
        // A tick longer, so that the last wait does not end a tick too soon.
        let left = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut polled = vec![PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        if let Some(stderr) = &self.stderr {
            polled.push(PollFd::new(stderr.as_fd(), PollFlags::POLLIN));
        }
        if let Some(stdin) = &self.stdin {
            polled.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut polled, left) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(io_error("watch the compiler")(error)),
        }
        let ended = polled.first().and_then(PollFd::any).unwrap_or(false);
        self.listen()?;
        Ok(ended)
    }

    /// Takes what the compiler has said so far.
    fn listen(&mut self) -> Result<(), AotError> {
        let mut buffer = [0; 4096];
        while let Some(stderr) = &mut self.stderr {
            match stderr.read(&mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(length) => {
                    let room = WORDS.saturating_sub(self.words.len());
                    self.words.extend_from_slice(&buffer[..length.min(room)]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(source) => return Err(io_error("listen to the compiler")(source)),
            }
        }
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.reaped {
            // A child that cannot be killed has ended; there is no one to tell.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: takes no pointers; the child is ours and not reaped, so the pid
    // is its own.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
