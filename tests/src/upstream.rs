//! A server of HTTP that guests call, with TLS or without.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Request, Response};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::server::Server;

/// A certificate and its key.
type Made = rcgen::CertifiedKey<rcgen::KeyPair>;

/// The server, as long as it lives. It answers with the version, the method and
/// the target of each request.
pub struct Upstream {
    pub port: u16,
    /// The certificate to believe, in PEM, where there is TLS.
    pub certificate: String,
    server: Server,
    heads: Arc<Mutex<Vec<HeaderMap>>>,
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
        self.server.connections()
    }

    /// The values of a field, of one request after the other.
    pub fn field(&self, name: &str) -> Vec<String> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let values = heads.iter().flat_map(|head| head.get_all(name));
        values
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    fn start(tls: Option<TlsAcceptor>, certificate: String) -> Result<Self> {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = heads.clone();
        let server = Server::start(
            tls,
            Arc::new(move |request| {
                let head = request.headers().clone();
                noted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(head);
                answer(&request)
            }),
        )?;
        Ok(Self {
            port: server.port,
            certificate,
            server,
            heads,
        })
    }
}

fn answer(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let text = format!(
        "{:?} {} {}\n",
        request.version(),
        request.method(),
        request.uri()
    );
    Response::new(Full::new(Bytes::from(text)))
}
