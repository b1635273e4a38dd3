//! A server of HTTP that guests call, with TLS or without.

use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A certificate and its key.
type Made = rcgen::CertifiedKey<rcgen::KeyPair>;

/// The server, as long as it lives. It answers with the version, the method and
/// the target of each request.
pub struct Upstream {
    pub port: u16,
    /// The certificate to believe, in PEM, where there is TLS.
    pub certificate: String,
    connections: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Upstream {
    /// Without TLS.
    ///
    /// # Errors
    /// What keeps it from listening.
    pub fn plain() -> Result<Self> {
        Self::start(None, String::new())
    }

    /// With TLS by the name `localhost`, and these protocols to agree on.
    ///
    /// # Errors
    /// What keeps it from listening.
    pub fn secure(protocols: &[&str]) -> Result<Self> {
        // Images that have it are the same for all tests.
        static MADE: OnceLock<Made> = OnceLock::new();
        let made = match MADE.get() {
            Some(made) => made,
            None => {
                let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
                MADE.get_or_init(|| made)
            }
        };
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(Some(acceptor), made.cert.pem())
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    fn start(tls: Option<TlsAcceptor>, certificate: String) -> Result<Self> {
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
                    () = accept(listener, tls, counted) => {}
                    // By the end of the other side.
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            port,
            certificate,
            connections,
            _stop: stop,
        })
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, connections: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        connections.fetch_add(1, SeqCst);
        match tls.clone() {
            None => drop(tokio::spawn(answer(stream))),
            Some(tls) => drop(tokio::spawn(async move {
                // Who does not believe the certificate goes away.
                if let Ok(stream) = tls.accept(stream).await {
                    answer(stream).await;
                }
            })),
        }
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let text = format!(
            "{:?} {} {}\n",
            request.version(),
            request.method(),
            request.uri()
        );
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    // The guest may end before its connections do.
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
