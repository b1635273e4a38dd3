//! Taken away again.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::host::Host;
use crate::node::{Node, Report};
use crate::say;
use crate::state::Shared;
use crate::stop::Stop;

/// How often it is looked whether pods still run.
const PACE: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// Removes wisp, however long its pods run, and stays until it is told to stop:
/// the pod of a DaemonSet that ends is started anew.
///
/// # Errors
/// None now.
pub async fn run(host: &Host, node: &Node<'_>, shared: &Shared, mut stop: Stop) -> Result<()> {
    loop {
        shared.beat();
        let pause = match once(host, node, shared, Duration::ZERO).await {
            Ok(()) => {
                shared.lock().not_ready = None;
                PAUSE
            }
            Err(error) => {
                say(&format!("{error:#}"));
                shared.lock().not_ready = Some(format!("{error:#}"));
                // Pods end at any time.
                PACE * 5
            }
        };
        if stop.within(pause).await {
            return Ok(());
        }
    }
}

/// Removes wisp. First no new pods come, then those that run are waited for.
///
/// # Errors
/// Why it is all still there; the Node object says so, too.
pub async fn once(host: &Host, node: &Node<'_>, shared: &Shared, patience: Duration) -> Result<()> {
    tell(node, shared, &Report::new(false, "leaving", "", json!({}))).await;
    match leave(host, shared, patience).await {
        Ok(()) => {
            tell(node, shared, &Report::none()).await;
            say("wisp is removed from this node");
            Ok(())
        }
        Err(reason) => {
            tell(
                node,
                shared,
                &Report::new(false, "not-removed", &reason, json!({})),
            )
            .await;
            if let Err(error) = node.event(true, "WispNotRemoved", &reason).await {
                say(&format!("no event: {error}"));
            }
            bail!("wisp is not removed: {reason}");
        }
    }
}

async fn leave(host: &Host, shared: &Shared, patience: Duration) -> Result<(), String> {
    // At once if nothing runs; also of what is left of a proof that was killed.
    if host.uninstall().await.is_ok() {
        shared.lock().processes = 0;
        return Ok(());
    }
    let begun = Instant::now();
    loop {
        let found = host.status().await?;
        let count = found.processes.len();
        shared.lock().processes = count;
        shared.beat();
        if count == 0 {
            return host.uninstall().await;
        }
        if begun.elapsed() >= patience {
            return Err(format!(
                "{count} processes of wisp still run; when their pods have ended, run `wisp node \
                 uninstall` there or apply the DaemonSet with WISP_MODE=uninstall"
            ));
        }
        tokio::time::sleep(PACE).await;
    }
}

/// What cannot be said is no reason to stay: the rights may have been deleted
/// with the DaemonSet.
async fn tell(node: &Node<'_>, shared: &Shared, report: &Report) {
    if let Err(error) = node.say(report).await {
        say(&format!("the Node object is not told: {error}"));
        shared.lock().refused += 1;
    }
}
