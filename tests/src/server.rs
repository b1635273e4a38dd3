//! A server of HTTP on a thread of its own, with TLS or without.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// What it makes of a request, all of which is there.
pub type Answer = Arc<dyn Fn(Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync>;

/// The server, as long as it lives.
pub struct Server {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// Listens on loopback.
    ///
    /// # Errors
    /// What keeps it from that.
    pub fn start(tls: Option<TlsAcceptor>, answer: Answer) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let port = listener.local_addr().context("address")?.port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, tls, answer, counted) => {}
                    // By the end of the other side.
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            port,
            connections,
            _stop: stop,
        })
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answer: Answer,
    connections: Arc<AtomicUsize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, SeqCst);
        let answer = answer.clone();
        match tls.clone() {
            None => drop(tokio::spawn(serve(stream, answer))),
            Some(tls) => drop(tokio::spawn(async move {
                // Who does not believe the certificate goes away.
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, answer).await;
                }
            })),
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: Answer) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)))
        }
    });
    // The guest may end before its connections do.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
