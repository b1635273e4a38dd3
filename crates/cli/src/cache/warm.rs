//! `wisp cache warm`.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::Signal;
use wisp_aot::{Cache, Compiler, Digest};
use wisp_config::Config;
use wisp_image::{ImageProgram, Images};

use super::{Containerd, amount, variable};

/// How often the time on a terminal moves on.
const TICK: Duration = Duration::from_millis(200);

/// Compile the programs of images before they are started
///
/// The images must have been pulled or imported. Of each, its Wasm layers are
/// compiled, and the file that it starts if that is called .wasm.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Warm {
    #[command(flatten)]
    containerd: Containerd,
    /// The images' namespace [default: default, or what CONTAINERD_NAMESPACE
    /// says]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// The images, by the names that `ctr image ls` shows
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// For `watch`: nobody waits for this process, and images without Wasm are
    /// no error.
    #[arg(long, hide = true)]
    ahead: bool,
}

/// A program that is to be compiled.
struct Job {
    name: String,
    digest: Digest,
    open: Box<dyn FnMut() -> io::Result<Box<dyn Read>>>,
}

impl Warm {
    /// Compiles, and says how each went. One that fails does not keep the
    /// others from being compiled.
    ///
    /// # Errors
    /// A containerd that does not answer.
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        if self.ahead {
            // Nobody would see what it does any more.
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("follow `watch`")?;
        }
        let namespace = self
            .namespace
            .clone()
            .or_else(|| variable("CONTAINERD_NAMESPACE"))
            .unwrap_or_else(|| "default".into());
        let images = Images::connect(&self.containerd.address(), &namespace)?;
        let mut cache = Cache::from_config(config);
        if self.ahead {
            cache = cache.ahead();
        }
        let compiler = crate::compiler(config)?;
        let mut failed = false;
        for image in &self.images {
            let result = self.programs(&images, image).map(|programs| {
                for program in programs {
                    let result =
                        job(image, program).and_then(|job| compile(job, &cache, &compiler));
                    failed |= said(result);
                }
            });
            failed |= said(result);
        }
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn programs(&self, images: &Images, image: &str) -> Result<Vec<ImageProgram>> {
        let programs = images.programs(image)?;
        if programs.is_empty() && !self.ahead {
            bail!("{image}: has no Wasm layer and starts no file that is called .wasm");
        }
        Ok(programs)
    }
}

/// Says what is wrong, if something is; answers that.
fn said(result: Result<()>) -> bool {
    match result {
        Ok(()) => false,
        Err(error) => {
            crate::complain(&error);
            true
        }
    }
}

fn job(image: &str, program: ImageProgram) -> Result<Job> {
    match program {
        ImageProgram::Layer(layer) => {
            let title = layer.title.as_deref().unwrap_or("Wasm layer");
            let name = format!("{image} {title}");
            Ok(Job {
                digest: layer.digest.parse().with_context(|| name.clone())?,
                open: Box::new(move || layer.open().map_err(io::Error::other)),
                name,
            })
        }
        ImageProgram::File { path, mut file } => {
            let name = format!("{image} {path}");
            let digest = Digest::of(&mut file).with_context(|| name.clone())?;
            let open = move || {
                let mut again: File = file.try_clone()?;
                again.rewind()?;
                Ok(Box::new(again) as Box<dyn Read>)
            };
            Ok(Job {
                name,
                digest,
                open: Box::new(open),
            })
        }
    }
}

fn compile(mut job: Job, cache: &Cache, compiler: &Compiler) -> Result<()> {
    let begun = Instant::now();
    let loaded = with_progress(&job.name, || {
        cache.load(&job.digest, &mut job.open, compiler)
    });
    let artifact = loaded.with_context(|| job.name.clone())?;
    if let Some(warning) = artifact.warning {
        if !artifact.cached {
            bail!("{}: {warning}", job.name);
        }
        eprintln!("wisp: {}: {warning}", job.name);
    }
    let how = if artifact.cached {
        "is there already".into()
    } else {
        format!("compiled in {:.1} s", begun.elapsed().as_secs_f64())
    };
    let size = amount::size(artifact.file.metadata()?.len());
    super::print(&format!("{}: {how} ({size})\n", job.name))
}

/// Shows on a terminal that something goes on, and for how long.
fn with_progress<T>(name: &str, work: impl FnOnce() -> T) -> T {
    if !io::stdout().is_terminal() {
        return work();
    }
    let begun = Instant::now();
    let (done, end) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(TICK) {
                let seconds = begun.elapsed().as_secs_f64();
                // A terminal that has gone away shows nothing.
                let _ = super::print(&format!("\r{name}: compiling, {seconds:.1} s"));
            }
            let _ = super::print("\r\x1b[K");
        });
        let result = work();
        drop(done);
        result
    })
}
