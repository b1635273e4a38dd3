//! The process of an HTTP component, from listening to its end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wasmtime::Engine;
use wisp_capability::{HttpServer, annotation};

use super::connections::Connections;
use super::cores::{Cores, CpuLimit};
use super::instance::{Handler, Maker};
use super::instances::Instances;
use super::metrics::Metrics;
use super::record::Records;
use super::request::Service;
use super::scrape;
use super::ticker::Ticker;
use super::trace::{self, Exporter};
use super::turns::Turns;
use crate::event_loop::event_loop;
use crate::exit::{NOT_STARTED, complain};
use crate::setup::{Setup, Surroundings};
use crate::signals::{install_command_signals, release_draining_signals};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// How long an instance that may be used again waits for that.
const KEPT: Duration = Duration::from_secs(30);

/// Serves until a signal ends it and gives the exit code.
pub fn run(engine: Engine, handler: Handler, setup: Setup) -> i32 {
    let runtime = match event_loop() {
        Ok(runtime) => runtime,
        Err(error) => {
            (setup.ready)(Err(format!("event loop: {error}")));
            return NOT_STARTED;
        }
    };
    wisp_heap::keep();
    let code = runtime.block_on(async {
        let Setup {
            grant,
            preopens,
            memory_limit,
            ledger,
            cpu_limit,
            config,
            ready,
        } = setup;
        let (address, settings) = (grant.http_listen, grant.http.clone());
        match Server::new(engine, handler, address, settings, cpu_limit, || {
            Surroundings::new(grant, preopens, memory_limit, ledger, config)
        }) {
            Ok(server) => {
                ready(Ok(()));
                server.serve().await
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
    metrics: Option<TcpListener>,
    service: Arc<Service>,
    exporter: Option<Exporter>,
    cores: Cores,
    signals: Signals,
}

impl Server {
    fn new(
        engine: Engine,
        handler: Handler,
        address: SocketAddr,
        settings: HttpServer,
        cpu_limit: CpuLimit,
        surroundings: impl FnOnce() -> Result<Surroundings, String>,
    ) -> Result<Self, String> {
        let signals = Signals::install().map_err(|error| format!("signal handlers: {error}"))?;
        let surroundings = surroundings()?;
        let ticker =
            Ticker::start(engine.clone()).map_err(|error| format!("start a thread: {error}"))?;
        let listener = listen(address, annotation::HTTP_LISTEN)?;
        let metrics = settings
            .metrics
            .map(|address| listen(address, annotation::METRICS_LISTEN))
            .transpose()?;
        let (traces, exporter) = trace::start(&surroundings).unzip();
        let records = Arc::new(Records {
            metrics: Arc::new(Metrics::new()),
            log: settings.access_log,
            stdout: surroundings.stdout.clone(),
        });
        let maker = Maker::new(engine, handler, surroundings, records.metrics.clone());
        if settings.concurrency > 1 && !maker.is_concurrent() {
            complain(&format!(
                "{} has no effect: an instance of WASI 0.2 handles one request after the other",
                annotation::HTTP_CONCURRENCY
            ));
        }
        let service = Arc::new(Service {
            instances: Instances::new(maker, &settings),
            turns: Arc::new(Turns::new(settings.max_requests, settings.queue)),
            ticker,
            records,
            traces,
            settings: Arc::new(settings),
        });
        Ok(Self {
            listener,
            metrics,
            service,
            exporter,
            cores: Cores::new(cpu_limit),
            signals,
        })
    }

    async fn serve(self) -> i32 {
        let Self {
            listener,
            metrics,
            service,
            exporter,
            cores,
            mut signals,
        } = self;
        if let Some(listener) = metrics {
            tokio::spawn(scrape::serve(service.clone(), listener));
        }
        if service.instances.keeps() {
            tokio::spawn(forget(service.clone()));
        }
        let grace = service.settings.grace;
        let mut connections = Connections::new(service, cores);
        tokio::select! {
            never = connections.accept(&listener) => match never {},
            _ = signals.next() => {}
        }
        let end = tokio::time::Instant::now() + grace;
        if let Some(exporter) = &exporter {
            exporter.hurry();
        }
        // Who has connected already is served: the kernel has said yes.
        connections.accept_waiting(&listener);
        drop(listener);
        let ended = async {
            connections.drain().await;
            if let Some(exporter) = exporter {
                exporter.finish(end).await;
            }
        };
        tokio::select! {
            biased;
            () = ended => 0,
            // The second time it is meant.
            code = signals.next() => code,
            () = tokio::time::sleep_until(end) => {
                complain(&format!(
                    "requests still being answered {grace:?} after the signal to stop are cut \
                     off; {} gives them longer",
                    annotation::HTTP_GRACE
                ));
                128 + libc::SIGTERM
            }
        }
    }
}

/// Ends instances that nobody has used for a while, for ever.
pub(super) async fn forget(service: Arc<Service>) -> Infallible {
    loop {
        tokio::time::sleep(KEPT).await;
        if let Some(since) = Instant::now().checked_sub(KEPT) {
            service.instances.forget(since);
        }
    }
}

/// A socket that listens on `address`, which the annotation `key` can change.
fn listen(address: SocketAddr, key: &str) -> Result<TcpListener, String> {
    bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "listen on {address}: address in use: another server has this port; \
             {key} gives this one another"
        ),
        _ => format!("listen on {address}: {error}; see {key}"),
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
