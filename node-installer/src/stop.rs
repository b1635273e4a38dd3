//! Being told to end: by kubelet with SIGTERM, by hand with Ctrl-C.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether it is time to end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// From now on signals do not end the process, but say so here.
    ///
    /// # Errors
    /// When the kernel does not let us listen.
    pub fn listen() -> Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("listen to SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen to SIGINT")?;
        let (tell, told) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = tell.send(true);
            // Nobody is left to be told when the process ends.
            tell.closed().await;
        });
        Ok(Self(told))
    }

    /// Waits for as long as `time`, or until it is time to end; answers whether
    /// it is.
    pub async fn within(&mut self, time: Duration) -> bool {
        let told = self.0.wait_for(|stop| *stop);
        tokio::time::timeout(time, told).await.is_ok()
    }
}
