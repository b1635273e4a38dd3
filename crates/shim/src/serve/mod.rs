//! The daemon: serves the task API of one pod, from one thread.
//!
//! It is the process that stays for as long as the pod lives, once per pod, so
//! it does nothing that another process can do: no Wasm, no gRPC, no compiler.

mod calls;
mod create;
mod error;
pub mod events;
mod exec;
mod listener;
mod logger;
mod metrics;
mod oom;
mod options;
mod pause;
pub mod process;
mod reaper;
mod service;
mod stdio;
mod task;
mod terminal;
mod update;

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use containerd_shim::Flags;
use containerd_shim::protos::shim_async::create_task;
use containerd_shim::protos::ttrpc::asynchronous::{Server, Service as Methods};
use log::{info, warn};
use tokio::signal::unix::{SignalKind, signal};

use self::calls::Calls;
use self::events::Publisher;
use self::reaper::Reaper;
use self::service::Service;

/// Runs the daemon until containerd asks it to shut down.
///
/// # Errors
/// When it cannot start; containerd then finds nobody at the socket.
pub fn run(listener: RawFd, flags: &Flags) -> anyhow::Result<ExitCode> {
    // SAFETY: `start` passed this descriptor to this process alone and nothing
    // else here uses its number.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(listener) });
    nix::fcntl::fcntl(
        &listener,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )
    .context("take the listener")?;
    logger::init(&flags.namespace, &flags.id, flags.debug);
    become_subreaper().context("become a subreaper")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(listener, flags))?;
    // Tasks that wait for nothing any more must not hold up the end.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// Processes that lose their parent become ours: containers whose creator has
/// ended, and what native programs leave behind.
fn become_subreaper() -> Result<(), nix::errno::Errno> {
    nix::sys::prctl::set_child_subreaper(true)
}

async fn serve(listener: UnixListener, flags: &Flags) -> anyhow::Result<()> {
    let reaper = Reaper::start().context("watch for ended processes")?;
    let publisher = Publisher::start(
        std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
        flags.namespace.clone(),
    );
    let service = Arc::new(Service::new(
        flags.namespace.clone(),
        flags.id.clone(),
        flags.address.clone(),
        reaper,
        publisher.clone(),
    ));
    let mut server = Server::new()
        .add_listener(listener::listen(listener).context("serve the socket")?)
        .register_service(task_api(&service));
    server.start().await.context("serve")?;
    info!("serving pod {}", flags.id);

    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    let end = service.shut_down();
    tokio::pin!(end);
    loop {
        let name = tokio::select! {
            () = &mut end => break,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if service.is_idle() {
            break;
        }
        // Ending now would leave containers that nobody can stop or report.
        warn!("{name} ignored: containers are running");
    }
    // First the file, so that a start from now on makes a new daemon.
    let _ = std::fs::remove_file(flags.socket.trim_start_matches("unix://"));
    publisher.flush(Duration::from_secs(3)).await;
    if let Err(error) = server.shutdown().await {
        warn!("end the server: {error}");
    }
    info!("pod {} is served no more", flags.id);
    Ok(())
}

/// The task service under both of its names: version 3 is a copy of version 2
/// under another name, and containerd before 2.0 knows only the older.
fn task_api(service: &Arc<Service>) -> HashMap<String, Methods> {
    let mut both = HashMap::new();
    for name in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        for methods in create_task(Arc::new(Calls::on(service.clone()))).into_values() {
            both.insert(name.to_owned(), methods);
        }
    }
    both
}
