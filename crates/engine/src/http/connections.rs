//! Connections of clients, from accepting to draining.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::activity::{Activity, Verdict, Watched};
use super::cores::Cores;
use super::metrics::Metrics;
use super::request::{Service, Working};
use super::workers::Workers;

/// How long to wait after an error that only time can mend, such as no more
/// descriptors.
pub(super) const RECOVERY: Duration = Duration::from_millis(100);

/// How long a connection that is to end may take for its last bytes.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// How many turns of the event loop a connection has, when the server is to stop,
/// for a request that has come before that.
const LAST_TURNS: u8 = 2;

/// Streams of one HTTP/2 connection that may be open at once.
const STREAMS: u32 = 128;

/// Clients beyond the limit that are told so at once; others are not.
const REFUSALS: usize = 64;

/// What they are told.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 21\r\n\r\ntoo many connections\n";

/// All open connections and running guests.
pub struct Connections {
    workers: Workers,
    service: Arc<Service>,
    builder: Arc<Builder<TokioExecutor>>,
    free: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stop: watch::Sender<bool>,
    working: Working,
    idle: mpsc::Receiver<Infallible>,
}

/// What a connection has from its beginning to its end, whichever thread serves
/// it.
pub struct Opened {
    client: SocketAddr,
    builder: Arc<Builder<TokioExecutor>>,
    stop: watch::Receiver<bool>,
    working: Working,
    _place: OwnedSemaphorePermit,
}

impl Opened {
    /// Serves `stream` to the end of the connection.
    pub async fn serve(self, service: Arc<Service>, stream: TcpStream) {
        let _counted = Counted::new(&service.records.metrics);
        serve(&service, stream, &self).await;
    }
}

/// An open connection in the metrics, also where it ends by a panic.
struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.connections.add(1);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections.subtract(1);
    }
}

impl Connections {
    pub fn new(service: Arc<Service>, cores: Cores) -> Self {
        let (working, idle) = mpsc::channel(1);
        Self {
            builder: Arc::new(builder(service.settings.max_header)),
            free: Arc::new(Semaphore::new(service.settings.max_connections as usize)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            workers: Workers::new(service.clone(), cores),
            service,
            stop: watch::Sender::new(false),
            working,
            idle,
        }
    }

    /// Accepts clients for ever.
    pub async fn accept(&mut self, listener: &TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => self.accepted(stream, client),
                // The client gave up; that is its own business.
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    crate::exit::complain(&format!("accept a connection: {error}"));
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
    }

    /// Accepts those that wait now.
    pub fn accept_waiting(&mut self, listener: &TcpListener) {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..self.service.settings.max_connections {
            match listener.poll_accept(&mut context) {
                Poll::Ready(Ok((stream, client))) => self.accepted(stream, client),
                Poll::Ready(Err(error)) if is_clients(&error) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, client: SocketAddr) {
        let Ok(place) = self.free.clone().try_acquire_owned() else {
            self.refuse(stream);
            return;
        };
        // Small answers go out at once; where that fails they only take longer.
        let _ = stream.set_nodelay(true);
        let opened = Opened {
            client,
            builder: self.builder.clone(),
            stop: self.stop.subscribe(),
            working: self.working.clone(),
            _place: place,
        };
        if let Err(error) = self.workers.give(stream, opened) {
            crate::exit::complain(&format!("a connection to its thread: {error}"));
        }
    }

    /// Says that there is no place, where that takes nobody's time.
    fn refuse(&self, mut stream: TcpStream) {
        let Ok(place) = self.refusals.clone().try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let told = async {
                stream.write_all(REFUSAL).await?;
                stream.shutdown().await?;
                // What is not read when a connection closes makes the kernel
                // take back what was written.
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            // How it ends is the client's business.
            let _ = timeout(Duration::from_secs(1), told).await;
            drop(place);
        });
    }

    /// Lets what has begun come to its end, and nothing new begin. Resolves
    /// once there is neither a connection nor a running guest.
    pub async fn drain(self) {
        let Self {
            stop,
            working,
            mut idle,
            ..
        } = self;
        stop.send_replace(true);
        drop(working);
        while idle.recv().await.is_some() {}
    }
}

fn builder(max_header: usize) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Times are kept by `Activity`, without a timer for each request.
        .header_read_timeout(None)
        .max_buf_size(max_header);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(max_header).unwrap_or(u32::MAX));
    builder
}

/// Serves one client to the end of its connection.
async fn serve(service: &Arc<Service>, stream: TcpStream, opened: &Opened) {
    let Opened {
        client,
        builder,
        working,
        ..
    } = opened;
    let mut stop = opened.stop.clone();
    let activity = Activity::new();
    let answer = service_fn(|request| {
        let answer = service
            .clone()
            .answer(request, *client, activity.clone(), working.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = Watched::new(TokioIo::new(stream), activity.clone());
    let mut connection = pin!(builder.serve_connection(io, answer));
    let (idle, head) = (
        service.settings.idle_timeout,
        service.settings.header_timeout,
    );
    let mut alarm = pin!(sleep_until(Instant::now() + head.min(idle)));
    let (mut stopping, mut ending, mut turns) = (false, false, LAST_TURNS);
    loop {
        // How a connection ends is between hyper and the client: a reset or
        // nonsense on the wire is nothing to tell the operator.
        // A request that is here already comes before the wish to stop.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
            }
            // What has come is read in the next turn, if it has not been.
            () = yield_now(), if stopping && turns > 0 => {
                turns -= 1;
                if turns == 0 {
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = alarm.as_mut() => match activity.check(idle, head) {
                Verdict::Fine(until) => alarm.as_mut().reset(until),
                Verdict::Idle if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                    alarm.as_mut().reset(Instant::now() + LAST_BYTES);
                }
                Verdict::Idle | Verdict::Slow => return,
            }
        }
    }
}

fn is_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
