//! `wisp cache watch`.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use wisp_aot::{Cache, Limits};
use wisp_config::Config;
use wisp_image::{ImageError, ImageRecord, Images, image_events};

use super::Containerd;

/// containerd does not say when it has taken a subscription: events that come
/// just before that are not missed for longer than this.
const SOON: Duration = Duration::from_secs(5);
/// What events leave out, an image that failed for one, is looked for so often.
const LATER: Duration = Duration::from_secs(300);
/// How often an image is tried.
const TRIES: u32 = 3;
/// The first and the longest rest before containerd is tried again.
const RESTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often it is asked whether a compilation has ended.
const TICK: Duration = Duration::from_millis(20);

/// Compile the programs of images as they are pulled
///
/// Follows containerd and compiles what is new, one program at a time and only
/// while nothing else wants the processor or the disk, so that the first start
/// of an image is like the second. Begins with the images that are there. It
/// may be ended and started again at any time; SIGTERM ends it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Watch {
    #[command(flatten)]
    containerd: Containerd,
    /// A namespace to look after; again for more. All, if none is given
    #[arg(short, long, value_name = "NAME")]
    namespace: Vec<String>,
}

/// An image in a namespace.
type Image = (String, ImageRecord);

impl Watch {
    /// Follows containerd until a signal ends it.
    ///
    /// # Errors
    /// When the process cannot even begin.
    pub fn run(&self, config: &Config) -> Result<ExitCode> {
        // This process has one thread; what it starts is as humble.
        wisp_aot::lower_priority().context("lower the priority")?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start")?;
        let result = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let wake = Notify::new();
            tokio::select! {
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
                result = self.compile(&wake) => result,
                () = self.listen(&wake) => Ok(()),
            }
        });
        // A question to containerd may be open; nobody needs the answer.
        runtime.shutdown_background();
        // What was compiled just now has been killed.
        let _ = Cache::from_config(config).prune(&Limits::default(), false);
        result.map(|()| ExitCode::SUCCESS)
    }

    /// Wakes the other half for each event, and after each new connection.
    async fn listen(&self, wake: &Notify) {
        let address = self.containerd.address();
        let mut rest = RESTS.0;
        let mut was_up = true;
        loop {
            let mut is_up = false;
            let connected = || {
                eprintln!("wisp: watching containerd at {address}");
                is_up = true;
                wake.notify_one();
            };
            let error = image_events(&address, connected, |event| {
                if self.is_wanted(&event.namespace) {
                    wake.notify_one();
                }
            })
            .await;
            // Once, however long it is away.
            if is_up || was_up {
                eprintln!("wisp: {error}; waiting for it to come back");
            }
            if is_up {
                rest = RESTS.0;
            }
            was_up = is_up;
            sleep(rest).await;
            rest = (rest * 2).min(RESTS.1);
        }
    }

    /// Compiles whatever there is and has not been compiled, again and again.
    async fn compile(&self, wake: &Notify) -> Result<()> {
        let program = std::env::current_exe().context("find wisp itself")?;
        let mut tried: HashMap<Image, u32> = HashMap::new();
        let mut pause = None;
        loop {
            match pause {
                None => wake.notified().await,
                Some(pause) => {
                    // Woken or not, it is time to look.
                    let _ = timeout(pause, wake.notified()).await;
                }
            }
            pause = match pause {
                Some(SOON) => Some(LATER),
                _ => Some(SOON),
            };
            let images = match self.images().await {
                Ok(images) => images,
                Err(error) => {
                    eprintln!("wisp: {error}");
                    continue;
                }
            };
            // Those that have gone may come back as something else.
            tried.retain(|image, _| images.contains(image));
            for image in images {
                let tries = tried.entry(image.clone()).or_default();
                if *tries >= TRIES {
                    continue;
                }
                *tries += 1;
                if self.warm(&program, &image).await? {
                    *tries = TRIES;
                }
            }
        }
    }

    /// The images that there are now.
    async fn images(&self) -> Result<Vec<Image>, ImageError> {
        let address = self.containerd.address();
        let wanted = self.namespace.clone();
        let listing = tokio::task::spawn_blocking(move || {
            let namespaces = if wanted.is_empty() {
                Images::connect(&address, "default")?.namespaces()?
            } else {
                wanted
            };
            let mut found = Vec::new();
            for namespace in namespaces {
                let images = Images::connect(&address, &namespace)?.list()?;
                found.extend(images.into_iter().map(|image| (namespace.clone(), image)));
            }
            Ok(found)
        });
        match listing.await {
            Ok(images) => images,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn is_wanted(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace.iter().any(|name| name == namespace)
    }

    /// Has an image compiled by a process of its own, which can be killed and
    /// takes its memory with it. Answers whether that went well.
    async fn warm(&self, program: &std::path::Path, image: &Image) -> Result<bool> {
        let (namespace, record) = image;
        let address = self.containerd.address();
        let child = Command::new(program)
            .args(["cache", "warm", "--ahead", "--address", &address])
            .args(["--namespace", namespace, "--", &record.name])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start `wisp cache warm`")?;
        let mut child = Group(child);
        loop {
            if let Some(status) = child.0.try_wait().context("wait for it")? {
                return Ok(status.success());
            }
            sleep(TICK).await;
        }
    }
}

/// A process that is not left behind, nor what it has started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let (Ok(None), Ok(pid)) = (self.0.try_wait(), i32::try_from(self.0.id())) {
            // Not reaped yet: the number is still its own.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}
