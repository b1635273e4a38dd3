//! Network rules: `[scheme://]host[:port]`, separated by commas.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::address::{Block, Kind, canonical, is_ordinary, kind, names_kind};

/// What a connection is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Tcp,
    Udp,
    Http,
    Https,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "http" => Self::Http,
            "https" => Self::Https,
            _ => return None,
        })
    }

    /// Whether it is a socket the guest holds itself, rather than a request
    /// that is made for it.
    fn is_socket(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Everyone but those that must be named.
    Any,
    /// One name, in lower case, without a trailing dot.
    Name(String),
    /// All names that end so; starts with a dot.
    Suffix(String),
    Block(Block),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// `None` means any.
    scheme: Option<Scheme>,
    host: Host,
    ports: RangeInclusive<u16>,
}

/// A list of network rules; what none of them allows is denied.
///
/// A rule is `[scheme://]host[:port]`. The scheme is `tcp`, `udp`, `http` or
/// `https`, any if left out. The host is a name, `*.name` (names below it, not
/// the name itself), an address, a CIDR block or `*`; IPv6 with a port stands
/// in brackets. The port is a number, a range `from-to` or `*`, any if left
/// out.
///
/// `*` (and a block as wide) covers neither link-local and metadata addresses
/// nor, where the network is the host's, loopback: those take a rule with an
/// address or block of their own. The node's own addresses take a rule with just
/// the address. A name covers whatever it resolves to, with the same exceptions;
/// `localhost` covers loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    /// The node's own addresses, as [`canonical`] has them.
    node: Vec<IpAddr>,
}

impl Rules {
    /// Parses a comma-separated list. An empty text is an empty list.
    ///
    /// # Errors
    /// What is wrong with which rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|rule| {
                let rule = rule.trim();
                Rule::parse(rule).map_err(|problem| match rule {
                    "" => "an empty rule: remove the extra comma".into(),
                    _ => format!("rule {rule:?}: {problem}"),
                })
            })
            .collect::<Result<_, _>>()
            .map(|rules| Self {
                rules,
                node: Vec::new(),
            })
    }

    /// Says which addresses are the node's own: they must be named, each, to be
    /// reached.
    pub fn set_node(&mut self, addresses: &[IpAddr]) {
        self.node = addresses.iter().copied().map(canonical).collect();
    }

    /// Whether nothing at all is allowed.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some rule is about `scheme`.
    pub fn uses(&self, scheme: Scheme) -> bool {
        self.rules.iter().any(|rule| rule.is_about(scheme))
    }

    /// Whether some rule about sockets covers a port below `limit`.
    pub fn covers_ports_below(&self, limit: u16) -> bool {
        self.rules.iter().any(|rule| {
            (rule.is_about(Scheme::Tcp) || rule.is_about(Scheme::Udp))
                && *rule.ports.start() < limit
        })
    }

    /// Whether a guest with sockets of its own has a use for looking up names.
    pub fn wants_lookup(&self) -> bool {
        self.rules.iter().any(|rule| {
            matches!(rule.host, Host::Any | Host::Name(_))
                && (rule.is_about(Scheme::Tcp) || rule.is_about(Scheme::Udp))
        })
    }

    /// Whether a guest with sockets of its own may ask for the addresses of
    /// `name`. One that is an address is its own answer.
    pub fn allows_lookup(&self, name: &str) -> bool {
        let name = tidy(name);
        literal(&name).is_some()
            || self.rules.iter().any(|rule| {
                let named = match &rule.host {
                    Host::Any => true,
                    Host::Name(known) => *known == name,
                    Host::Suffix(suffix) => name.ends_with(suffix.as_str()),
                    Host::Block(_) => false,
                };
                named && (rule.is_about(Scheme::Tcp) || rule.is_about(Scheme::Udp))
            })
    }

    /// Whether `address` may be used for `scheme`, as an address. Names in the
    /// rules do not count here: see [`Self::names`].
    pub fn allows_addr(&self, scheme: Scheme, address: SocketAddr, host_network: bool) -> bool {
        let ip = canonical(address.ip());
        self.matching(scheme, address.port())
            .any(|rule| match &rule.host {
                Host::Any => is_open(self.kind(ip), host_network),
                Host::Block(block) => {
                    let kind = self.kind(ip);
                    let named = *block == Block::single(ip) || names_kind(block, kind);
                    block.contains(ip) && (is_open(kind, host_network) || named)
                }
                Host::Name(_) | Host::Suffix(_) => false,
            })
    }

    /// Whether `host`, a name or the text of an address, may be asked for.
    /// The addresses it then leads to are for [`Self::allows_resolved`].
    pub fn allows_name(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        let host = tidy(host);
        let literal = literal(&host);
        self.matching(scheme, port)
            .any(|rule| match (&rule.host, literal) {
                (Host::Any, _) => true,
                (Host::Block(block), Some(ip)) => block.contains(canonical(ip)),
                (Host::Name(name), None) => *name == host,
                (Host::Suffix(suffix), None) => host.ends_with(suffix.as_str()),
                _ => false,
            })
    }

    /// Whether `address`, to which `host` resolved, may be used for `scheme`.
    /// Implies [`Self::allows_name`] or [`Self::allows_addr`].
    pub fn allows_resolved(
        &self,
        scheme: Scheme,
        host: &str,
        address: SocketAddr,
        host_network: bool,
    ) -> bool {
        if self.allows_addr(scheme, address, host_network) {
            return true;
        }
        let host = tidy(host);
        if literal(&host).is_some() {
            return false;
        }
        let open = match self.kind(canonical(address.ip())) {
            Kind::Loopback if host == "localhost" => true,
            kind => is_open(kind, host_network),
        };
        open && self
            .matching(scheme, address.port())
            .any(|rule| match &rule.host {
                Host::Name(name) => *name == host,
                Host::Suffix(suffix) => host.ends_with(suffix.as_str()),
                // What these allow, they allow by address.
                Host::Any | Host::Block(_) => false,
            })
    }

    /// The names whose addresses may be used for `scheme` and `port`. A socket
    /// has only an address: to check it, these must be looked up.
    pub fn names(&self, scheme: Scheme, port: u16) -> impl Iterator<Item = &str> {
        self.matching(scheme, port)
            .filter_map(|rule| match &rule.host {
                Host::Name(name) => Some(name.as_str()),
                _ => None,
            })
    }

    /// Whether a rule has a host that only a lookup can tell, if any the first.
    pub(crate) fn first_name(&self) -> Option<&str> {
        self.rules.iter().find_map(|rule| match &rule.host {
            Host::Name(name) | Host::Suffix(name) => Some(name.as_str()),
            Host::Any | Host::Block(_) => None,
        })
    }

    /// The first rule that grants more than all of `most` does; each must lie
    /// within a single one of them.
    pub(crate) fn first_beyond(&self, most: &Self) -> Option<String> {
        self.rules
            .iter()
            .find(|rule| !most.rules.iter().any(|outer| outer.covers(rule)))
            .map(ToString::to_string)
    }

    /// The kind of `address`, which must be [`canonical`].
    fn kind(&self, address: IpAddr) -> Kind {
        match kind(address) {
            Kind::Ordinary if self.node.contains(&address) => Kind::Node,
            kind => kind,
        }
    }

    fn matching(&self, scheme: Scheme, port: u16) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.is_about(scheme) && rule.ports.contains(&port))
    }
}

fn is_open(kind: Kind, host_network: bool) -> bool {
    match kind {
        Kind::Ordinary => true,
        Kind::Loopback => !host_network,
        Kind::Node => false,
    }
}

fn tidy(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
        .parse()
        .ok()
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Suffix(suffix) => write!(f, "*{suffix}")?,
            Host::Block(block) => write!(f, "{block}")?,
        }
        match (self.ports.start(), self.ports.end()) {
            (0, &u16::MAX) => Ok(()),
            (from, to) if from == to => write!(f, ":{from}"),
            (from, to) => write!(f, ":{from}-{to}"),
        }
    }
}

impl Rule {
    /// Whether it allows all that `inner` does.
    fn covers(&self, inner: &Self) -> bool {
        let scheme = self.scheme.is_none() || self.scheme == inner.scheme;
        let ports =
            self.ports.contains(inner.ports.start()) && self.ports.contains(inner.ports.end());
        let host = match (&self.host, &inner.host) {
            (Host::Any, Host::Any | Host::Suffix(_)) => true,
            // What a star leaves out must be named here, too.
            (Host::Any, Host::Name(name)) => name != "localhost",
            (Host::Any, Host::Block(block)) => is_ordinary(block),
            (Host::Name(outer), Host::Name(name)) => outer == name,
            (Host::Suffix(outer), Host::Name(name) | Host::Suffix(name)) => name.ends_with(outer),
            (Host::Block(outer), Host::Block(block)) => outer.covers(block),
            _ => false,
        };
        scheme && ports && host
    }

    fn is_about(&self, scheme: Scheme) -> bool {
        self.scheme.is_none_or(|own| own == scheme)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let known = Scheme::parse(scheme).ok_or_else(|| {
                    format!("scheme {scheme:?} is not one of tcp, udp, http and https")
                })?;
                (Some(known), rest)
            }
            None => (None, text),
        };
        let (host, ports) = split_port(rest)?;
        let host = parse_host(host)?;
        if let (Host::Suffix(_), Some(scheme)) = (&host, scheme)
            && scheme.is_socket()
        {
            return Err(format!(
                "a {scheme} connection shows an address only, which \"*.\" cannot be checked \
                 against: give the full names, or addresses"
            ));
        }
        Ok(Self {
            scheme,
            host,
            ports: parse_ports(ports)?,
        })
    }
}

/// Splits `host[:port]`; IPv6 has colons of its own.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket is not closed")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(format!("{after:?} after the bracket is not a port")),
        };
    }
    if text.matches(':').count() > 1 {
        return Ok((text, None));
    }
    Ok(match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

fn parse_ports(text: Option<&str>) -> Result<RangeInclusive<u16>, String> {
    let Some(text) = text.filter(|text| *text != "*") else {
        return Ok(0..=u16::MAX);
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse::<u16>().ok().filter(|_| digits);
        port.ok_or_else(|| format!("port {text:?} is not a number up to 65535, a range or *"))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(format!("port range {text:?} ends before it begins"));
    }
    Ok(from..=to)
}

fn parse_host(text: &str) -> Result<Host, String> {
    if text == "*" {
        return Ok(Host::Any);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Block(Block::single(canonical(address))));
    }
    if let Some((network, prefix)) = text.split_once('/') {
        let address = network
            .parse::<IpAddr>()
            .map_err(|_| format!("{text:?} is not a CIDR block: use address/length"))?;
        let length = prefix
            .parse::<u8>()
            .map_err(|_| format!("{prefix:?} is not a prefix length"))?;
        return Block::new(address, length).map(Host::Block).ok_or_else(|| {
            format!("{text:?} has a prefix too long for the address, or bits set behind it")
        });
    }
    let name = tidy(text);
    if let Some(parent) = name.strip_prefix("*.") {
        check_name(parent)?;
        return Ok(Host::Suffix(format!(".{parent}")));
    }
    check_name(&name)?;
    Ok(Host::Name(name))
}

fn check_name(name: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // What ends in a number is an address gone wrong, never a name: resolvers take
    // it for one, in octal, hexadecimal and with fewer parts (inet_aton(3)).
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = match last.strip_prefix("0x") {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if name.len() <= 253 && !numeric && name.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is neither a name, \"*.name\", an address, a CIDR block nor \"*\""
    ))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
