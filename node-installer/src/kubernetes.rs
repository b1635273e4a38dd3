//! The API server: five calls, so its HTTP is spoken here. A client library
//! would be some fifty crates more in a program that runs as root on every node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::args::Kubernetes;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read, in bytes.
const LARGEST: usize = 8 * 1024 * 1024;

/// What came instead of an answer.
#[derive(Debug)]
pub enum ApiError {
    /// The API server said no, with an HTTP status and its message.
    Refused(u16, String),
    /// It was not reached, or cannot be understood.
    Unreachable(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(status, message) => write!(f, "{status}: {message}"),
            Self::Unreachable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ApiError {}

/// What is sent.
#[derive(Debug)]
pub enum Send {
    /// Nothing: asked for.
    Get,
    /// Asked for, of an object only its metadata.
    GetMetadata,
    /// A new object.
    Post(Value),
    /// A JSON merge patch (RFC 7386).
    Patch(Value),
    /// To be deleted, with these options.
    Delete(Value),
}

/// The API server, and who we are there.
pub struct Api {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    /// Read anew for each call: kubelet replaces it every hour.
    token: PathBuf,
}

impl Api {
    /// As the arguments say, else as every pod is told.
    ///
    /// # Errors
    /// When this is no pod and nothing is said, or a certificate is missing.
    pub fn new(args: &Kubernetes) -> Result<Self> {
        let url = match &args.kubernetes {
            Some(url) => url.clone(),
            None => in_cluster()?,
        };
        let uri: Uri = url.parse().with_context(|| format!("the address {url}"))?;
        let host = uri.host().with_context(|| format!("no host in {url}"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let (secure, usual) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => bail!("{url} is neither http:// nor https://"),
        };
        let tls = match secure {
            true => Some(connector(&args.credentials.join("ca.crt"))?),
            false => None,
        };
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(usual),
            tls,
            token: args.credentials.join("token"),
        })
    }

    /// One call.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn call(&self, path: &str, send: Send) -> Result<Value, ApiError> {
        let called = tokio::time::timeout(PATIENCE, self.try_call(path, send)).await;
        called.unwrap_or_else(|_| {
            Err(ApiError::Unreachable(format!(
                "no answer from {} within {} s",
                self.host,
                PATIENCE.as_secs()
            )))
        })
    }

    async fn try_call(&self, path: &str, send: Send) -> Result<Value, ApiError> {
        let lost = |what: &str, error: &dyn std::fmt::Display| {
            ApiError::Unreachable(format!("{what} {}:{}: {error}", self.host, self.port))
        };
        let request = self.request(path, send)?;
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| lost("connect to", &error))?;
        let response = match &self.tls {
            None => exchange(stream, request).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone())
                    .map_err(|error| lost("the name", &error))?;
                let stream = tls
                    .connect(name, stream)
                    .await
                    .map_err(|error| lost("TLS with", &error))?;
                exchange(stream, request).await
            }
        };
        let (status, body) = response.map_err(|error| lost("HTTP with", &error))?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let message = match value["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body).chars().take(200).collect(),
        };
        Err(ApiError::Refused(status, message))
    }

    fn request(&self, path: &str, send: Send) -> Result<Request<Full<Bytes>>, ApiError> {
        let json = "application/json";
        let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let (method, accept, kind, body) = match send {
            Send::Get => (Method::GET, json, None, None),
            Send::GetMetadata => (Method::GET, metadata, None, None),
            Send::Post(value) => (Method::POST, json, Some(json), Some(value)),
            Send::Patch(value) => {
                let merge = "application/merge-patch+json";
                (Method::PATCH, json, Some(merge), Some(value))
            }
            Send::Delete(value) => (Method::DELETE, json, Some(json), Some(value)),
        };
        let bytes = body.map(|value| value.to_string()).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(bytes)));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|error| ApiError::Unreachable(format!("the path {path}: {error}")))?;
        let host = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|error| ApiError::Unreachable(format!("a header: {error}")))
        };
        let headers = request.headers_mut();
        headers.insert(HOST, header(&host)?);
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let agent = concat!("wisp-node-installer/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Ok(token) = std::fs::read_to_string(&self.token) {
            let mut value = header(&format!("Bearer {}", token.trim()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

/// Sends a request on a connection of its own, and reads the answer.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(u16, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("begin")?;
    let carried = tokio::spawn(connection);
    let exchanged = async {
        let response = sender.send_request(request).await.context("ask")?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("read: {error}"))?;
        Ok((status, body.to_bytes()))
    }
    .await;
    carried.abort();
    exchanged
}

fn in_cluster() -> Result<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST")
        .context("this is no pod: name the API server with --kubernetes")?;
    let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    Ok(match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    })
}

/// TLS with whoever has a certificate of the cluster's authority.
fn connector(authority: &std::path::Path) -> Result<TlsConnector> {
    let shown = authority.display();
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::pem_file_iter(authority).with_context(|| format!("read {shown}"))?;
    for certificate in pem {
        let certificate = certificate.with_context(|| format!("read {shown}"))?;
        roots.add(certificate).with_context(|| shown.to_string())?;
    }
    ensure!(!roots.is_empty(), "{shown} has no certificate");
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
