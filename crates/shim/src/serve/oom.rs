//! TaskOOM: tells containerd that a container has run out of memory.

use std::sync::Arc;

use containerd_shim::protos::events::task::TaskOOM;
use log::{info, warn};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;
use wisp_container::cgroup::{Cgroup, OomWatch, Seen};

use super::events::{Event, Publisher};

/// A container's watch.
#[derive(Debug)]
pub struct Oom {
    reporter: Arc<Reporter>,
    waiting: AbortHandle,
}

#[derive(Debug)]
struct Reporter {
    watch: AsyncFd<OomWatch>,
    container: String,
    publisher: Publisher,
}

impl Oom {
    /// Watches container `id` from now on. A node without a memory controller
    /// gets a warning and its containers no such events, as with runc.
    pub fn watch(id: &str, cgroup: &Cgroup, publisher: &Publisher) -> Option<Self> {
        let watch = cgroup
            .watch_oom()
            .and_then(|watch| {
                // SAFETY: the watch owns its descriptor, answers the same one
                // always, and closes it when it is dropped.
                let registered =
                    unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) };
                Ok(registered?)
            })
            .inspect_err(|error| warn!("container {id}: cannot watch for OOM: {error}"))
            .ok()?;
        let reporter = Arc::new(Reporter {
            watch,
            container: id.to_owned(),
            publisher: publisher.clone(),
        });
        let own = reporter.clone();
        let waiting = tokio::spawn(async move { own.run().await }).abort_handle();
        Some(Self { reporter, waiting })
    }

    /// Reports what has happened up to now, and nothing after it.
    pub fn stop(&self) {
        self.waiting.abort();
        self.reporter.report();
    }
}

impl Drop for Oom {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

impl Reporter {
    async fn run(&self) {
        while let Ok(mut ready) = self.watch.readable().await {
            if !self.report() {
                return;
            }
            ready.clear_ready();
        }
    }

    /// Whether there can be more to report.
    fn report(&self) -> bool {
        match self.watch.get_ref().take() {
            Ok(Seen::Nothing) => true,
            Ok(Seen::Oom) => {
                info!("container {}: out of memory", self.container);
                self.publisher.publish(&Event::Oom(TaskOOM {
                    container_id: self.container.clone(),
                    ..TaskOOM::default()
                }));
                true
            }
            Ok(Seen::Gone) => false,
            Err(error) => {
                warn!("container {}: watch for OOM: {error}", self.container);
                false
            }
        }
    }
}
