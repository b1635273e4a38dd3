//! Which addresses the guest's own sockets may use.

use std::net::SocketAddr;
use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;
use wisp_capability::{Grant, Rules, Scheme};

use crate::lookups::Lookups;
use crate::refusals::{Refusal, Refusals};

/// The network part of a grant.
pub struct Network {
    pub outbound: Rules,
    pub listen: Rules,
    /// Whether the network namespace is the host's.
    pub host: bool,
    pub refusals: Refusals,
    /// Those of names, by guests and to check their sockets.
    pub lookups: Lookups,
}

/// What the rules say about an address.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Denied,
    /// Some name in the rules may lead to it.
    PerhapsByName,
}

impl Network {
    pub fn new(grant: &Grant) -> Self {
        Self {
            outbound: grant.outbound.clone(),
            listen: grant.listen.clone(),
            host: grant.host_network,
            refusals: Refusals::default(),
            lookups: Lookups::default(),
        }
    }

    /// Gives the guest the sockets that some rule may allow, and checks each
    /// use of an address.
    pub fn apply(self: &Arc<Self>, wasi: &mut WasiCtxBuilder) {
        let uses = |scheme| self.outbound.uses(scheme) || self.listen.uses(scheme);
        wasi.allow_tcp(uses(Scheme::Tcp))
            .allow_udp(uses(Scheme::Udp))
            .allow_ip_name_lookup(self.outbound.wants_lookup());
        if !uses(Scheme::Tcp) && !uses(Scheme::Udp) {
            return;
        }
        let network = self.clone();
        wasi.socket_addr_check(move |address, used_as| {
            let verdict = network.check(address, &used_as);
            let network = network.clone();
            Box::pin(async move {
                let allowed = match verdict {
                    Verdict::Allowed => true,
                    Verdict::Denied => false,
                    Verdict::PerhapsByName => {
                        let network = network.clone();
                        let scheme = scheme(&used_as);
                        // A task, because the check must be `Sync`.
                        tokio::spawn(async move { network.is_named(scheme, address).await })
                            .await
                            .unwrap_or(false)
                    }
                };
                if !allowed {
                    network.tell(address, &used_as);
                }
                allowed
            })
        });
    }

    /// Tells that an address was refused; not of what others sent or asked.
    fn tell(&self, address: SocketAddr, used_as: &SocketAddrUse) {
        let scheme = scheme(used_as);
        let place = address.to_string();
        match used_as {
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                self.refusals.tell(&Refusal::Connect(scheme, &place));
            }
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind | SocketAddrUse::TcpListen => {
                self.refusals.tell(&Refusal::Listen(scheme, &place));
            }
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => {}
        }
    }

    fn check(&self, address: SocketAddr, used_as: &SocketAddrUse) -> Verdict {
        let scheme = scheme(used_as);
        let listens = || self.listen.allows_addr(scheme, address, self.host);
        match used_as {
            // A connection going out binds to any free port first.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
                let implicit = address.port() == 0 && address.ip().is_unspecified();
                allowed((implicit && self.outbound.uses(scheme)) || listens())
            }
            SocketAddrUse::TcpListen => allowed(listens()),
            // Whoever may listen may hear everyone.
            SocketAddrUse::TcpAccept => allowed(self.listen.uses(scheme)),
            SocketAddrUse::UdpReceive if self.listen.uses(scheme) => Verdict::Allowed,
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => {
                self.check_outbound(scheme, address)
            }
        }
    }

    fn check_outbound(&self, scheme: Scheme, address: SocketAddr) -> Verdict {
        if self.outbound.allows_addr(scheme, address, self.host) {
            return Verdict::Allowed;
        }
        if self.outbound.names(scheme, address.port()).next().is_some() {
            return Verdict::PerhapsByName;
        }
        Verdict::Denied
    }

    /// Whether a name in the rules resolves to `address` now.
    async fn is_named(&self, scheme: Scheme, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        for name in self.outbound.names(scheme, address.port()) {
            let Some(_lookup) = self.lookups.begin(name) else {
                return false;
            };
            let allowed = || (self.outbound).allows_resolved(scheme, name, address, self.host);
            let Ok(mut found) = tokio::net::lookup_host((name, address.port())).await else {
                continue;
            };
            if found.any(|found| found.ip().to_canonical() == ip) && allowed() {
                return true;
            }
        }
        false
    }
}

fn allowed(allowed: bool) -> Verdict {
    if allowed {
        Verdict::Allowed
    } else {
        Verdict::Denied
    }
}

fn scheme(used_as: &SocketAddrUse) -> Scheme {
    match used_as {
        SocketAddrUse::TcpBind
        | SocketAddrUse::TcpListen
        | SocketAddrUse::TcpAccept
        | SocketAddrUse::TcpConnect => Scheme::Tcp,
        SocketAddrUse::UdpBind | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => Scheme::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(outbound: &str, listen: &str) -> Network {
        Network {
            outbound: Rules::parse(outbound).expect("outbound"),
            listen: Rules::parse(listen).expect("listen"),
            host: false,
            refusals: Refusals::default(),
            lookups: Lookups::default(),
        }
    }

    fn check(network: &Network, address: &str, used_as: SocketAddrUse) -> Verdict {
        network.check(address.parse().expect("address"), &used_as)
    }

    #[test]
    fn going_out_needs_an_outbound_rule() {
        let network = network("tcp://10.0.0.1:80, udp://10.0.0.2:53", "");
        use SocketAddrUse::*;
        for (address, used_as, verdict) in [
            ("10.0.0.1:80", TcpConnect, Verdict::Allowed),
            ("10.0.0.1:81", TcpConnect, Verdict::Denied),
            ("10.0.0.2:53", TcpConnect, Verdict::Denied),
            ("10.0.0.2:53", UdpSend, Verdict::Allowed),
            ("0.0.0.0:0", TcpBind, Verdict::Allowed),
            ("0.0.0.0:80", TcpBind, Verdict::Denied),
            ("0.0.0.0:49152", TcpListen, Verdict::Denied),
            ("10.0.0.9:9", TcpAccept, Verdict::Denied),
        ] {
            assert_eq!(check(&network, address, used_as), verdict, "{address}");
        }
    }

    #[test]
    fn listening_needs_a_listen_rule() {
        let network = network("", "tcp://*:8000-8010");
        use SocketAddrUse::*;
        for (address, used_as, verdict) in [
            ("0.0.0.0:8000", TcpBind, Verdict::Allowed),
            ("0.0.0.0:8000", TcpListen, Verdict::Allowed),
            ("0.0.0.0:9000", TcpListen, Verdict::Denied),
            ("0.0.0.0:0", TcpBind, Verdict::Denied),
            ("10.0.0.9:9", TcpAccept, Verdict::Allowed),
            ("10.0.0.1:80", TcpConnect, Verdict::Denied),
            ("0.0.0.0:8000", UdpBind, Verdict::Denied),
        ] {
            assert_eq!(check(&network, address, used_as), verdict, "{address}");
        }
    }

    #[test]
    fn a_name_is_looked_up_only_where_its_rule_could_match() {
        let network = network("tcp://db.example:5432", "");
        let connect = |address| check(&network, address, SocketAddrUse::TcpConnect);
        assert_eq!(connect("10.0.0.1:5432"), Verdict::PerhapsByName);
        assert_eq!(connect("10.0.0.1:80"), Verdict::Denied);
    }
}
