//! TLS for the requests that a guest makes.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi_http::Error;

use super::errors;
use super::trust::Trust;
use crate::exit::complain;

/// A connection to a server, with TLS or without.
pub type Stream = Box<dyn Transport>;

/// What a connection can do.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Makes connections secret.
pub struct Tls {
    trust: Trust,
    /// Made when the first request needs it, and kept: reading certificates
    /// costs more than a handshake.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    config: Option<Arc<ClientConfig>>,
    told: bool,
}

impl Tls {
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            known: Mutex::default(),
        }
    }

    /// Makes sure that the server at the other end of `stream` is `host`, a name
    /// or the text of an address, and encrypts what is sent. Says whether the
    /// server wants HTTP/2, which only a server of requests is offered, not a
    /// proxy.
    pub async fn connect(
        &self,
        stream: Stream,
        host: &str,
        offer_http2: bool,
    ) -> Result<(Stream, bool), Error> {
        let bare = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(bare).map_err(|_| Error::HttpRequestUriInvalid)?;
        let mut config = self.config().map_err(errors::of_settings)?;
        if !offer_http2 {
            Arc::make_mut(&mut config).alpn_protocols = vec![HTTP1.to_vec()];
        }
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(errors::of_tls)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((Box::new(stream), http2))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        // It is there or not, whoever panicked.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &known.config {
            return Ok(config.clone());
        }
        let roots = self.trust.roots().inspect_err(|problem| {
            if !known.told {
                complain(problem);
            }
        });
        known.told = true;
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots?)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(known.config.insert(Arc::new(config)).clone())
    }
}
