//! Deleting the DaemonSet while it still has the rights to clean up behind it:
//! who deletes everything at once takes them away.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::args::Retire;
use crate::kubernetes::{Api, ApiError, Send};
use crate::node::daemon_set;
use crate::say;

/// How often it is looked.
const PACE: Duration = Duration::from_secs(1);

/// Deletes it, and waits until the last of its pods is gone.
///
/// # Errors
/// When it is still there in the end.
pub async fn run(args: &Retire) -> Result<()> {
    let api = Api::new(&args.kubernetes)?;
    let path = daemon_set(&args.daemon_set).context("name the DaemonSet with --daemonset")?;
    // In the foreground: it is there until its pods are gone.
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
    });
    match api.call(&path, Send::Delete(options)).await {
        Ok(_) => {}
        Err(ApiError::Refused(404, _)) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("delete {path}")),
    }
    let end = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        match api.call(&path, Send::Get).await {
            Err(ApiError::Refused(404, _)) => {
                say("the DaemonSet and its pods are gone");
                return Ok(());
            }
            Err(error) => say(&format!("{path}: {error}")),
            Ok(_) => {}
        }
        if Instant::now() >= end {
            bail!(
                "{path} is still there after {} s: its pods wait for pods of wisp to end",
                args.timeout
            );
        }
        tokio::time::sleep(PACE).await;
    }
}
