//! Makes requests, on connections that are there or on new ones.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, Version, header};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};
use wisp_capability::Grant;

use super::Io;
use super::dial::{admit, dial, may_ask_for, may_reach};
use super::exchange::{Failure, exchange};
use super::kept::{Kept, Link, Peer, Wire};
use super::proxy::{Proxies, Proxy};
use super::sent::Sent;
use super::target::{self, Target};
use super::tls::Tls;
use super::trust::Trust;
use crate::network::Network;
use crate::refusals::Refusal;
use crate::setup::HostPreopen;

/// How long each step of a request may take if the guest does not say.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many connections there may be at once, if the guest does not answer
/// more requests than these.
const OPEN: usize = 256;

/// Makes the requests of all instances of a guest.
pub struct Client {
    pub(super) network: Arc<Network>,
    pub(super) tls: Tls,
    proxies: Proxies,
    kept: Arc<Kept>,
    /// Places for connections.
    places: Arc<Semaphore>,
}

impl Client {
    pub fn new(grant: &Grant, preopens: &[HostPreopen], network: Arc<Network>) -> Self {
        Self {
            network,
            tls: Tls::new(Trust::new(&grant.env, preopens)),
            proxies: Proxies::of(&grant.env),
            kept: Kept::new(),
            places: Arc::new(Semaphore::new(OPEN.max(grant.http.max_requests as usize))),
        }
    }

    /// Whether `uri` may be asked for, as far as names tell: where they lead is
    /// looked at when it is.
    ///
    /// # Errors
    /// What is not granted: the target, or the proxy that is set for it.
    pub fn may_ask(&self, uri: &Uri) -> Result<(), String> {
        let told = |error: Error| error.to_string();
        let target = Target::of(uri).map_err(told)?;
        let proxy = self.proxies.of_target(&target).map_err(told)?;
        for target in [Some(&target), proxy.map(|proxy| &proxy.target)] {
            let Some(target) = target else { continue };
            let Target { scheme, host, port } = target;
            if !self.network.outbound.allows_name(*scheme, host, *port) {
                return Err(Refusal::Connect(*scheme, &target.to_string()).to_string());
            }
        }
        Ok(())
    }

    /// Sends `request` and gives the head of its response, and what tells how
    /// the request's body ended.
    ///
    /// A connection that is there is used again where it leads to the same
    /// target by an address that the grant allows. If it turns out to be closed,
    /// the request is made once more on a new one, if nothing of it was sent, or
    /// if it is one that may be repeated and nothing of its body was.
    pub async fn send(
        self: Arc<Self>,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<(Response<WasiBody>, Io), Error> {
        let target = Target::of(request.uri())?;
        // Nobody would read what comes through a tunnel.
        if request.method() == http::Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        admit(&self.network, &target)?;
        let proxy = self.proxies.of_target(&target)?;
        let (head, body) = request.into_parts();
        let (mut body, lent, outcome) = Sent::new(body);
        let mut head = tidy(head, &target, proxy)?;
        let repeatable = head.method.is_idempotent();
        let pause = options.between_bytes_timeout.unwrap_or(PATIENCE);
        let first_byte = options.first_byte_timeout.unwrap_or(PATIENCE);
        // It counts from when there is a connection, new or not.
        let mut deadline = None;
        let mut known = self.known(&target, proxy);
        let response = loop {
            let again = known.is_some().then(|| head.clone());
            let link = match known.take() {
                Some(link) => link,
                None => self.new_link(&target, proxy, &options).await?,
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now().checked_add(first_byte));
            let request = Request::from_parts(head, body);
            let Failure {
                error,
                broken,
                unsent,
            } = match exchange(link, request, &target, &self.kept, deadline, pause).await {
                Ok(response) => break response,
                Err(failure) => failure,
            };
            // That a new connection fails is an answer of its own.
            head = match again {
                Some(head) => head,
                None => return Err(error),
            };
            body = match unsent {
                Some(request) => request.into_body(),
                None => {
                    let repeated = (broken && repeatable).then(|| lent.again()).flatten();
                    repeated.ok_or(error)?
                }
            };
        };
        drop(lent);
        let io: Io = match outcome.is_known() {
            true => Box::new(std::future::ready(Ok(()))),
            false => Box::new(outcome.wait()),
        };
        Ok((response, io))
    }

    fn known(&self, target: &Target, proxy: Option<&Proxy>) -> Option<Link> {
        let network = &self.network;
        self.kept.take(target, |peer| match (peer, proxy) {
            (Peer::Target(address), None) => may_reach(network, target, address),
            (Peer::Proxy(address), Some(proxy)) => {
                may_reach(network, &proxy.target, address) && may_ask_for(network, target)
            }
            _ => false,
        })
    }

    async fn new_link(
        &self,
        target: &Target,
        proxy: Option<&Proxy>,
        options: &RequestOptions,
    ) -> Result<Link, Error> {
        let made = async {
            let place = match self.places.clone().try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    self.kept.make_room();
                    let place = self.places.clone().acquire_owned().await;
                    place.map_err(|_| Error::ConnectionLimitReached)?
                }
            };
            dial(self, target, proxy, place).await
        };
        let link = timeout(options.connect_timeout.unwrap_or(PATIENCE), made)
            .await
            .map_err(|_| Error::ConnectionTimeout)??;
        if let Wire::Many(sender, in_use) = &link.wire {
            let shared = Link {
                wire: Wire::Many(sender.clone(), in_use.clone()),
                peer: link.peer,
                made: link.made,
            };
            self.kept.put(target.clone(), shared);
        }
        Ok(link)
    }
}

/// The head as everybody but the guest is to see it: with the one host that was
/// checked, in its URI and its field.
fn tidy(mut head: Parts, target: &Target, proxy: Option<&Proxy>) -> Result<Parts, Error> {
    let authority = target::authority(&head.uri)?;
    let host = target::host_field(&authority)?;
    head.headers.insert(header::HOST, host);
    let mut uri = head.uri.into_parts();
    uri.authority = Some(authority);
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    head.uri = Uri::from_parts(uri).map_err(|_| Error::HttpRequestUriInvalid)?;
    head.version = Version::HTTP_11;
    // A tunnel has been asked for with it.
    if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.as_ref())
        && !target.is_tls()
    {
        head.headers
            .insert(header::PROXY_AUTHORIZATION, authorization.clone());
    }
    Ok(head)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
