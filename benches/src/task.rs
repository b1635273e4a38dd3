//! One task from Create to Delete, with the time of each call.

use crate::api::{Api, Prepared, Template};
use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{File, remove_file};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// What a task took, in milliseconds.
#[derive(Clone, Debug)]
pub struct Took {
    pub create: f64,
    pub start: f64,
    /// From the answer to Start to the answer to Wait, which was asked before.
    pub wait: f64,
    pub delete: f64,
    /// A call that only asks for the state.
    pub empty_call: f64,
    /// From the call of Start to the time that the guest has printed.
    pub to_guest: Option<f64>,
}

impl Took {
    /// Create, Start, Wait and Delete.
    pub fn sum(&self) -> f64 {
        self.create + self.start + self.wait + self.delete
    }
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runs one task; its container is gone afterwards, also after a failure.
///
/// # Errors
/// containerd's, and an exit code that is not 0.
pub async fn once(api: &Api, template: &Template, dir: &Path) -> Result<Took> {
    let prepared = api.prepare(template).await?;
    let took = calls(api, &prepared, dir).await;
    match took {
        Ok(_) => api.remove(&prepared).await?,
        Err(_) => api.clear(&prepared).await,
    }
    took
}

async fn calls(api: &Api, prepared: &Prepared, dir: &Path) -> Result<Took> {
    let mut stdout = Fifo::new(dir.join(format!("{}-out", prepared.id)))?;
    let stderr = Fifo::new(dir.join(format!("{}-err", prepared.id)))?;
    let id = &prepared.id;

    let begin = Instant::now();
    api.create(prepared, &stdout.path()?, &stderr.path()?)
        .await?;
    let create = begin.elapsed();

    let waiting = tokio::spawn({
        let (api, id) = (api.clone(), id.clone());
        async move {
            let code = api.wait(&id).await;
            (code, Instant::now())
        }
    });
    // The question is on its way before Start.
    tokio::task::yield_now().await;

    let host = SystemTime::now();
    let begin = Instant::now();
    api.start(id).await?;
    let started = Instant::now();
    let (code, ended) = waiting.await?;
    let code = code?;
    ensure!(code == 0, "the container ended with {code}");

    let asked = Instant::now();
    api.state(id).await?;
    let answered = Instant::now();
    api.delete(id).await?;
    Ok(Took {
        create: milliseconds(create),
        start: milliseconds(started - begin),
        wait: milliseconds(ended.saturating_duration_since(started)),
        delete: milliseconds(answered.elapsed()),
        empty_call: milliseconds(answered - asked),
        to_guest: to_guest(host, &stdout.content()?),
    })
}

/// Milliseconds from `host` to the nanoseconds of the real-time clock in the
/// guest's output, if that is what it printed.
fn to_guest(host: SystemTime, output: &str) -> Option<f64> {
    let guest: u128 = output.trim().parse().ok()?;
    let host = host.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos();
    let nanoseconds = i128::try_from(guest).ok()? - i128::try_from(host).ok()?;
    Some(nanoseconds as f64 / 1e6)
}

/// A task's standard output or error: a FIFO that is always open, so that neither
/// end waits for the other.
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    file: File,
}

impl Fifo {
    /// Makes it.
    ///
    /// # Errors
    /// When there is one, or none can be made.
    pub fn new(path: PathBuf) -> Result<Self> {
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)?;
        Ok(Self { path, file })
    }

    /// Its path, as containerd takes it.
    ///
    /// # Errors
    /// When it is no text.
    pub fn path(&self) -> Result<String> {
        let path = self.path.to_str().context("a path that is text")?;
        Ok(path.to_owned())
    }

    fn content(&mut self) -> Result<String> {
        let mut content = Vec::new();
        match self.file.read_to_end(&mut content) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_time_is_relative_to_the_hosts() {
        let host = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_000_000_000);
        assert_eq!(to_guest(host, "1002500000\n"), Some(2.5));
        assert_eq!(to_guest(host, "hello"), None);
    }
}
