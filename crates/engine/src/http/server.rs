//! The process of an HTTP component, from listening to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wasmtime::Engine;

use super::connections::Connections;
use super::request::{Handler, Service};
use super::ticker::Ticker;
use crate::exit::{NOT_STARTED, complain};
use crate::setup::{Setup, Surroundings};
use crate::signals::{install_command_signals, release_draining_signals};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Serves until a signal ends it and gives the exit code.
pub fn run(engine: Engine, handler: Handler, setup: Setup) -> i32 {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            (setup.ready)(Err(format!("event loop: {error}")));
            return NOT_STARTED;
        }
    };
    let code = runtime.block_on(async {
        let Setup {
            grant,
            preopens,
            memory_limit,
            config,
            ready,
            grace,
        } = setup;
        let address = grant.http_listen;
        match Server::new(engine, handler, address, || {
            Surroundings::new(grant, preopens, memory_limit, config)
        }) {
            Ok(server) => {
                ready(Ok(()));
                server.serve(grace).await
            }
            Err(reason) => {
                ready(Err(reason));
                NOT_STARTED
            }
        }
    });
    runtime.shutdown_background();
    code
}

struct Server {
    listener: TcpListener,
    connections: Connections,
    signals: Signals,
}

impl Server {
    fn new(
        engine: Engine,
        handler: Handler,
        address: SocketAddr,
        surroundings: impl FnOnce() -> Result<Surroundings, String>,
    ) -> Result<Self, String> {
        let signals = Signals::install().map_err(|error| format!("signal handlers: {error}"))?;
        let surroundings = surroundings()?;
        // Each request opens the preopens anew: better to fail now than then.
        surroundings.wasi()?;
        let ticker =
            Ticker::start(engine.clone()).map_err(|error| format!("start a thread: {error}"))?;
        let listener = listen(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "listen on {address}: address in use: another server has this port; \
                 io.wisp.http.listen gives this one another"
            ),
            _ => format!("listen on {address}: {error}"),
        })?;
        let connections = Connections::new(Arc::new(Service {
            engine,
            handler,
            surroundings,
            ticker,
        }));
        Ok(Self {
            listener,
            connections,
            signals,
        })
    }

    async fn serve(self, grace: Duration) -> i32 {
        let Self {
            listener,
            connections,
            mut signals,
        } = self;
        tokio::select! {
            never = connections.accept(&listener) => match never {},
            _ = signals.next() => {}
        }
        drop(listener);
        tokio::select! {
            () = connections.drain() => 0,
            // The second time it is meant.
            code = signals.next() => code,
            () = tokio::time::sleep(grace) => {
                complain(&format!(
                    "requests still being answered {} s after the signal to stop are cut off",
                    grace.as_secs()
                ));
                128 + libc::SIGTERM
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // The port is free again as soon as its last server has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The signals that ask the server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        install_command_signals()?;
        release_draining_signals()?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and gives the exit code it stands for.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 128 + libc::SIGTERM,
            _ = self.interrupt.recv() => 128 + libc::SIGINT,
        }
    }
}
