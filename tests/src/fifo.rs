//! FIFOs as a task's standard streams.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
    abandoned: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The reading end of a FIFO, read in the background from the start.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    shared: Shared,
}

impl Reader {
    /// Makes a FIFO at `path` and reads it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        make(path)?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)?;
        let shared = Shared::default();
        let theirs = Arc::clone(&shared);
        thread::spawn(move || read(file, &theirs));
        Ok(Self {
            path: path.to_path_buf(),
            shared,
        })
    }

    /// Its path, to be given to containerd.
    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<u8> {
        self.state(|state| state.bytes.clone())
    }

    /// Everything, once the last writer is gone.
    ///
    /// # Errors
    /// When that does not happen within `patience`.
    pub fn to_end(&self, patience: Duration) -> Result<Vec<u8>> {
        self.wait(patience, |state| state.ended)
            .context("the stream did not end")
    }

    /// Waits until `text` has come.
    ///
    /// # Errors
    /// When it does not come within `patience`.
    pub fn until(&self, text: &str, patience: Duration) -> Result<()> {
        let has = |state: &State| String::from_utf8_lossy(&state.bytes).contains(text);
        self.wait(patience, |state| has(state) || state.ended)?;
        if !self.state(has) {
            bail!("the stream ended without {text:?}");
        }
        Ok(())
    }

    fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self, patience: Duration, done: impl Fn(&State) -> bool) -> Result<Vec<u8>> {
        let (mutex, changed) = &*self.shared;
        let patience = crate::wait::here(patience);
        let state = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = changed
            .wait_timeout_while(state, patience, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner);
        if !done(&state) {
            bail!(
                "nothing more came from {} within {patience:?}; so far: {:?}",
                self.path.display(),
                crate::command::shown(&state.bytes)
            );
        }
        Ok(state.bytes.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (mutex, _) = &*self.shared;
        mutex
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abandoned = true;
    }
}

/// Makes a FIFO and opens it for writing, without waiting for its reader.
///
/// # Errors
/// When it cannot be made.
pub fn writer(path: &Path) -> Result<File> {
    make(path)?;
    // Only with a reader there can it be opened for writing at once; the reader
    // is this same open.
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let only = OpenOptions::new().write(true).open(path)?;
    drop(file);
    Ok(only)
}

fn make(path: &Path) -> Result<()> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
        .with_context(|| format!("mkfifo {}", path.display()))
}

fn read(mut file: File, shared: &Shared) {
    let (mutex, changed) = &**shared;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Before its first writer a FIFO is neither readable nor hung up. The
        // timeout is for noticing that nobody wants the rest.
        let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut polled, PollTimeout::from(100u8));
        let abandoned = mutex
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abandoned;
        match ready {
            _ if abandoned => return,
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => break,
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                let mut state = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                state.bytes.extend_from_slice(&buffer[..read]);
                changed.notify_all();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let mut state = mutex.lock().unwrap_or_else(PoisonError::into_inner);
    state.ended = true;
    changed.notify_all();
}
