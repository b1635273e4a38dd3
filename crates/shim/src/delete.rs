//! The `delete` role: containerd calls it when a pod's daemon is gone, to have
//! everything removed that the container left. It may be called at any point
//! of a container's life, and again.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use containerd_shim::Flags;
use containerd_shim::protos::api::DeleteResponse;
use containerd_shim::protos::protobuf::{Message, MessageField};
use wisp_container::Bundle;

use crate::orphans;
use crate::serve::process::now;

/// How long a daemon that is being killed may take to end.
const LAST_BREATH: Duration = Duration::from_millis(200);

/// Runs the role. The bundle is the working directory, or `-bundle`.
///
/// # Errors
/// When something could not be removed; what could be, is.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    let path = if flags.bundle.is_empty() {
        std::env::current_dir().context("find the bundle")?
    } else {
        PathBuf::from(&flags.bundle)
    };
    let removed = Bundle::new(&path).abandon(&flags.id).context("clean up");

    // Nobody waited for the process; killed is the honest guess.
    let status = 128 + libc::SIGKILL.unsigned_abs();
    let at = now();
    let orphaned = if remove_stale_socket(&path) {
        orphans::remove(&path, &flags.namespace, status, &at)
    } else {
        Ok(())
    };
    let response = DeleteResponse {
        exit_status: status,
        exited_at: MessageField::some(at),
        ..DeleteResponse::default()
    };
    removed.and(orphaned)?;
    std::io::stdout()
        .write_all(&response.write_to_bytes()?)
        .context("answer containerd")
}

/// Removes the daemon's socket if nobody listens there, and answers whether that
/// is so: a daemon that lives may serve other containers of the pod.
fn remove_stale_socket(bundle: &Path) -> bool {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else {
        return false;
    };
    let path = address.trim().trim_start_matches("unix://");
    loop {
        match UnixStream::connect(path) {
            // A killed daemon closes its connections, which is when containerd
            // calls this, a moment before its socket. One that lives keeps this
            // connection open, and says nothing.
            Ok(mut stream) => {
                let ended = stream
                    .set_read_timeout(Some(LAST_BREATH))
                    .and_then(|()| stream.read(&mut [0]));
                if ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                    return false;
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = fs::remove_file(path);
                return true;
            }
            // Removed by an earlier call that did not get to the end.
            Err(error) => return error.kind() == ErrorKind::NotFound,
        }
    }
}
