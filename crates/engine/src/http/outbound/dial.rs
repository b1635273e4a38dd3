//! New connections, each checked against the grant.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::Error;

use super::client::Client;
use super::errors;
use super::kept::{InUse, Link, Peer, Wire};
use super::proxy::Proxy;
use super::target::Target;
use super::tls::Stream;
use super::tunnel;
use crate::network::Network;
use crate::refusals::Refusal;

/// What the server of an HTTP/2 connection may send before somebody reads it,
/// in bytes: for one response, and for all.
const WINDOW: u32 = 512 << 10;
const WINDOWS: u32 = 2 << 20;

/// How long an HTTP/2 connection with requests may say nothing before it is
/// asked whether it is there.
const QUIET: Duration = Duration::from_secs(20);

/// Whether requests may be made of `target` at all; where its name leads is
/// for [`may_reach`]. A refusal is told.
pub fn admit(network: &Network, target: &Target) -> Result<(), Error> {
    let Target { scheme, host, port } = target;
    if network.outbound.allows_name(*scheme, host, *port) {
        return Ok(());
    }
    let place = target.to_string();
    network.refusals.tell(&Refusal::Connect(*scheme, &place));
    Err(Error::HttpRequestDenied)
}

/// Whether `address`, to which `target` leads, may be connected to.
pub fn may_reach(network: &Network, target: &Target, address: SocketAddr) -> bool {
    network
        .outbound
        .allows_resolved(target.scheme, &target.host, address, network.host)
}

/// Where the target's address is not looked up here, since a proxy does it,
/// whether it may be asked for: an address is checked as ever, of a name there
/// is no more to know.
pub fn may_ask_for(network: &Network, target: &Target) -> bool {
    target
        .literal()
        .is_none_or(|ip| may_reach(network, target, SocketAddr::new(ip, target.port)))
}

/// Makes a connection to `target`, by `proxy` if there is one. As long as it is
/// open it holds `place`.
pub async fn dial(
    client: &Client,
    target: &Target,
    proxy: Option<&Proxy>,
    place: OwnedSemaphorePermit,
) -> Result<Link, Error> {
    let network = &client.network;
    let (mut stream, peer) = match proxy {
        None => {
            let (stream, address) = reach(network, target).await?;
            (Box::new(stream) as Stream, Peer::Target(address))
        }
        Some(proxy) => {
            if !may_ask_for(network, target) {
                return Err(prohibited(network, target));
            }
            admit(network, &proxy.target)?;
            let (stream, address) = reach(network, &proxy.target).await?;
            let mut stream = Box::new(stream) as Stream;
            if proxy.target.is_tls() {
                let host = &proxy.target.host;
                stream = client.tls.connect(stream, host, false).await?.0;
            }
            if target.is_tls() {
                tunnel::open(&mut stream, proxy, target).await?;
            }
            (stream, Peer::Proxy(address))
        }
    };
    let mut is_http2 = false;
    if target.is_tls() {
        (stream, is_http2) = client.tls.connect(stream, &target.host, true).await?;
    }
    let io = TokioIo::new(stream);
    // Connections move bytes by themselves, and end with who uses them: how is
    // told there.
    let wire = if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOWS)
            .keep_alive_interval(QUIET);
        let (sender, connection) = builder.handshake(io).await.map_err(errors::of_exchange)?;
        tokio::spawn(async move {
            let _ = connection.await;
            drop(place);
        });
        Wire::Many(sender, InUse::new())
    } else {
        let (sender, connection) = http1::handshake(io).await.map_err(errors::of_exchange)?;
        tokio::spawn(async move {
            let _ = connection.await;
            drop(place);
        });
        Wire::One(sender)
    };
    Ok(Link {
        wire,
        peer,
        made: Instant::now(),
    })
}

/// Connects to the first address of the target that is allowed and answers.
async fn reach(network: &Network, target: &Target) -> Result<(TcpStream, SocketAddr), Error> {
    let Some(_lookup) = network.lookups.begin(&target.host) else {
        return Err(Error::DnsError {
            rcode: Some("too many names are being looked up".into()),
            info_code: None,
        });
    };
    let found = tokio::net::lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|error| Error::DnsError {
            rcode: Some(error.to_string()),
            info_code: None,
        })?;
    // A name that is allowed may still lead to where nobody may go.
    let mut last = None;
    for address in found {
        if !may_reach(network, target, address) {
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Small requests go out at once; where that fails they only
                // take longer.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Err(error) => last = Some(errors::of_connect(error)),
        }
    }
    Err(last.unwrap_or_else(|| prohibited(network, target)))
}

fn prohibited(network: &Network, target: &Target) -> Error {
    let place = target.to_string();
    network
        .refusals
        .tell(&Refusal::Prohibited(target.scheme, &place));
    Error::DestinationIpProhibited
}
