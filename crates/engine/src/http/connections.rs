//! Connections of clients, from accepting to draining.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::request::{Service, Working};

/// How long to wait after an error that only time can mend, such as no more
/// descriptors.
const RECOVERY: Duration = Duration::from_millis(100);

/// All open connections and running guests.
pub struct Connections {
    service: Arc<Service>,
    stop: watch::Sender<bool>,
    working: Working,
    idle: mpsc::Receiver<Infallible>,
}

impl Connections {
    pub fn new(service: Arc<Service>) -> Self {
        let (working, idle) = mpsc::channel(1);
        Self {
            service,
            stop: watch::Sender::new(false),
            working,
            idle,
        }
    }

    /// Accepts clients for ever.
    pub async fn accept(&self, listener: &TcpListener) -> Infallible {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.open(stream),
                // The client gave up; that is its own business.
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    crate::exit::complain(&format!("accept a connection: {error}"));
                    tokio::time::sleep(RECOVERY).await;
                }
            }
        }
    }

    fn open(&self, stream: TcpStream) {
        // Small answers go out at once; where that fails they only take longer.
        let _ = stream.set_nodelay(true);
        let service = self.service.clone();
        let working = self.working.clone();
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let answer = service.clone().answer(request, working.clone());
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new());
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
            // How a connection ends is between hyper and the client: a reset
            // or nonsense on the wire is nothing to tell the operator.
            tokio::select! {
                _ = &mut connection => return,
                _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
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

fn is_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
