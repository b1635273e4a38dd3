//! Requests that a guest makes.

use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme as UriScheme;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};
use wisp_capability::Scheme;

use super::impatient::Impatient;
use super::tls::{self, Stream};
use crate::network::Network;
use crate::refusals::Refusal;

/// How long each step of a request may take if the guest does not say.
const PATIENCE: Duration = Duration::from_secs(600);

/// Makes the requests of one guest, as far as its grant allows.
pub struct Outbound {
    network: Arc<Network>,
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Io), Error>;

impl Outbound {
    pub fn new(network: Arc<Network>) -> Self {
        Self { network }
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let network = self.network.clone();
        Box::new(async move { send(&network, request, options.unwrap_or_default()).await })
    }
}

/// Whom a request is for.
struct Target {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Target {
    fn of(uri: &http::Uri) -> Result<Self, Error> {
        let (scheme, default_port) = match uri.scheme() {
            Some(scheme) if *scheme == UriScheme::HTTP => (Scheme::Http, 80),
            Some(scheme) if *scheme == UriScheme::HTTPS => (Scheme::Https, 443),
            _ => return Err(Error::HttpProtocolError),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        Ok(Self {
            scheme,
            host: host.ok_or(Error::HttpRequestUriInvalid)?.to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
        })
    }
}

async fn send(
    network: &Network,
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Sent {
    let target = Target::of(request.uri())?;
    let stream = timeout(
        options.connect_timeout.unwrap_or(PATIENCE),
        connect(network, &target),
    )
    .await
    .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A server wants the path only; a whole URI is for proxies.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
    // The connection moves the bytes of both bodies, so it goes on by itself.
    let connection = tokio::spawn(connection);
    let first_byte = options.first_byte_timeout.unwrap_or(PATIENCE);
    let response = timeout(first_byte, sender.send_request(request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let pause = options.between_bytes_timeout.unwrap_or(PATIENCE);
    let response = response.map(|body| Impatient::new(body, pause).boxed_unsync());
    let io = Box::new(async move {
        match connection.await {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::ConnectionTerminated),
        }
    });
    Ok((response, io))
}

/// Connects to the first address of the target that is allowed and answers.
async fn connect(network: &Network, target: &Target) -> Result<Stream, Error> {
    let Target { scheme, host, port } = target;
    if !network.outbound.allows_name(*scheme, host, *port) {
        let place = format!("{host}:{port}");
        network.refusals.tell(&Refusal::Connect(*scheme, &place));
        return Err(Error::HttpRequestDenied);
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((bare, *port))
        .await
        .map_err(|error| Error::DnsError {
            rcode: Some(error.to_string()),
            info_code: None,
        })?;
    // A name that is allowed may still lead to where nobody may go.
    let mut last = Error::DestinationIpProhibited;
    let mut allowed = false;
    for address in found {
        if !network
            .outbound
            .allows_resolved(*scheme, host, address, network.host)
        {
            continue;
        }
        allowed = true;
        match TcpStream::connect(address).await {
            Ok(stream) if *scheme == Scheme::Https => return tls::connect(stream, bare).await,
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => last = Error::Connect(error),
        }
    }
    if !allowed {
        network
            .refusals
            .tell(&Refusal::Prohibited(*scheme, &format!("{host}:{port}")));
    }
    Err(last)
}
