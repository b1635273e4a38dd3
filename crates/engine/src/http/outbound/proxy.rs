//! Proxies, as the variables of the container's environment name them.

use std::net::IpAddr;

use http::header::HeaderValue;
use wasmtime_wasi_http::Error;
use wisp_capability::Scheme;

use super::errors;
use super::target::Target;

/// Which proxy is for which target.
#[derive(Default)]
pub struct Proxies {
    http: Option<Named>,
    https: Option<Named>,
    beside: Vec<Exception>,
}

/// What a variable says.
struct Named {
    variable: &'static str,
    proxy: Result<Proxy, String>,
}

/// A proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub target: Target,
    /// What it wants to know of who asks.
    pub authorization: Option<HeaderValue>,
}

/// Targets that are asked directly.
enum Exception {
    All,
    /// A name and all below it.
    Name(String, Option<u16>),
    Block(IpAddr, u8, Option<u16>),
}

impl Proxies {
    /// From the variables `http_proxy`, `https_proxy`, `all_proxy` and
    /// `no_proxy`; where one is there in capitals, too, that in small letters
    /// counts.
    pub fn of(env: &[(String, String)]) -> Self {
        let find = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let (_, value) = env.iter().find(|(key, _)| key == name)?;
                Some((name, value.trim()))
            })
        };
        // An empty one says that there is none.
        let named = |names| {
            find(names).map(|(variable, value)| {
                (!value.is_empty()).then(|| Named {
                    variable,
                    proxy: parse(value),
                })
            })
        };
        let all = || named(["all_proxy", "ALL_PROXY"]).flatten();
        Self {
            http: named(["http_proxy", "HTTP_PROXY"]).unwrap_or_else(all),
            https: named(["https_proxy", "HTTPS_PROXY"]).unwrap_or_else(all),
            beside: find(["no_proxy", "NO_PROXY"])
                .map(|(_, value)| {
                    value
                        .split([',', ' '])
                        .filter(|entry| !entry.is_empty())
                        .map(Exception::parse)
                        .collect()
                })
                .unwrap_or_default(),
        }
    }

    /// The proxy for `target`. This machine is never asked for by way of one:
    /// to it, the name would be its own machine.
    ///
    /// # Errors
    /// A variable that names none that can be used.
    pub fn of_target(&self, target: &Target) -> Result<Option<&Proxy>, Error> {
        let named = match target.is_tls() {
            true => &self.https,
            false => &self.http,
        };
        let Some(Named { variable, proxy }) = named else {
            return Ok(None);
        };
        if target.is_here() || self.beside.iter().any(|rule| rule.covers(target)) {
            return Ok(None);
        }
        match proxy {
            Ok(proxy) => Ok(Some(proxy)),
            Err(problem) => Err(errors::of_settings(format!("{variable}: {problem}"))),
        }
    }
}

fn parse(text: &str) -> Result<Proxy, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Scheme::Http, 80),
        "https" => (Scheme::Https, 443),
        _ => return Err(format!("proxies of kind {scheme:?} are not supported")),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let problem = || "it is not http://[USER:PASSWORD@]HOST[:PORT]".to_owned();
    let place: http::uri::Authority = place.parse().map_err(|_| problem())?;
    let host = place.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(problem());
    }
    Ok(Proxy {
        target: Target {
            scheme,
            host: host.to_ascii_lowercase(),
            port: place.port_u16().unwrap_or(port),
        },
        authorization: user.map(basic).transpose()?,
    })
}

/// The field that tells `user`, which is `NAME:PASSWORD` as URLs write it.
fn basic(user: &str) -> Result<HeaderValue, String> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut plain: Vec<u8> = percent_decode(name);
    plain.push(b':');
    plain.extend(percent_decode(password));
    let mut value = HeaderValue::from_str(&format!("Basic {}", base64(&plain)))
        .map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(value)
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        decoded.push(code.unwrap_or(first));
        rest = match code {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    decoded
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, place| {
            group << 8 | u32::from(three.get(place).copied().unwrap_or_default())
        });
        for place in 0..4 {
            if place > three.len() {
                text.push('=');
            } else {
                let index = (group >> (18 - 6 * place)) & 63;
                text.push(char::from(LETTERS[index as usize]));
            }
        }
    }
    text
}

impl Exception {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        let (place, port) = match entry.rsplit_once(':') {
            Some((place, port)) if !place.contains(':') || place.ends_with(']') => {
                (place, port.parse().ok())
            }
            _ => (entry, None),
        };
        let bare = place.trim_start_matches('[').trim_end_matches(']');
        let (address, length) = match bare.split_once('/') {
            Some((address, length)) => (address, length.parse().ok()),
            None => (bare, Some(u8::MAX)),
        };
        if let (Ok(address), Some(length)) = (address.parse::<IpAddr>(), length) {
            return Self::Block(address.to_canonical(), length, port);
        }
        let name = bare.trim_start_matches("*.").trim_matches('.');
        Self::Name(name.to_ascii_lowercase(), port)
    }

    fn covers(&self, target: &Target) -> bool {
        let at = |port: &Option<u16>| port.is_none_or(|port| port == target.port);
        match self {
            Self::All => true,
            Self::Name(name, port) => {
                let host = target.host.strip_suffix('.').unwrap_or(&target.host);
                at(port)
                    && target.literal().is_none()
                    && host
                        .strip_suffix(name.as_str())
                        .is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Self::Block(block, length, port) => {
                at(port)
                    && target
                        .literal()
                        .is_some_and(|address| is_within(address.to_canonical(), *block, *length))
            }
        }
    }
}

fn is_within(address: IpAddr, block: IpAddr, length: u8) -> bool {
    let same = |one: u128, other: u128, bits: u8| {
        let rest = u32::from(bits - length.min(bits));
        one.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
    };
    match (address, block) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            same(u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(env: &[(&str, &str)]) -> Proxies {
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Proxies::of(&env)
    }

    fn of(proxies: &Proxies, uri: &str) -> Option<String> {
        let target = Target::of(&uri.parse().expect("uri")).expect("target");
        let proxy = proxies.of_target(&target).expect("proxy")?;
        Some(format!("{} {}", proxy.target.scheme, proxy.target))
    }

    #[test]
    fn each_scheme_has_its_proxy_and_small_letters_win() {
        let proxies = proxies(&[
            ("HTTP_PROXY", "http://upper:1"),
            ("http_proxy", "lower:2"),
            ("HTTPS_PROXY", "https://secure"),
        ]);
        assert_eq!(of(&proxies, "http://a/").as_deref(), Some("http lower:2"));
        let secure = Some("https secure:443");
        assert_eq!(of(&proxies, "https://a/").as_deref(), secure);
    }

    #[test]
    fn one_for_all_is_for_what_has_none_of_its_own() {
        let proxies = proxies(&[("ALL_PROXY", "http://all:1/"), ("https_proxy", "")]);
        assert_eq!(of(&proxies, "http://a/").as_deref(), Some("http all:1"));
        assert_eq!(of(&proxies, "https://a/"), None);
    }

    #[test]
    fn exceptions_are_names_addresses_blocks_and_ports() {
        let rules = "a.example, .b.example *.c.example 10.0.0.0/8,192.0.2.1,fd00::/8,d.example:81";
        let proxies = proxies(&[("http_proxy", "p:1"), ("no_proxy", rules)]);
        for uri in [
            "http://a.example/",
            "http://x.A.example./",
            "http://b.example/",
            "http://x.c.example/",
            "http://10.1.2.3/",
            "http://192.0.2.1/",
            "http://[fd12::1]/",
            "http://d.example:81/",
            "http://localhost/",
            "http://127.0.0.1/",
        ] {
            assert_eq!(of(&proxies, uri), None, "{uri}");
        }
        for uri in [
            "http://nota.example/",
            "http://example/",
            "http://11.0.0.1/",
            "http://192.0.2.10/",
            "http://[fe00::1]/",
            "http://d.example/",
        ] {
            assert!(of(&proxies, uri).is_some(), "{uri}");
        }
        let none = self::proxies(&[("http_proxy", "p:1"), ("NO_PROXY", "*")]);
        assert_eq!(of(&none, "http://a/"), None);
    }

    #[test]
    fn a_proxy_is_told_who_asks() {
        for (text, expected) in [
            ("http://me:secret@p:1", Some("Basic bWU6c2VjcmV0")),
            ("http://m%40e:@p:1", Some("Basic bUBlOg==")),
            ("http://me@p:1", Some("Basic bWU6")),
            ("http://p:1", None),
        ] {
            let proxy = parse(text).expect(text);
            let told = proxy.authorization.as_ref().map(|value| value.to_str());
            assert_eq!(told.transpose().expect("text"), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_fails_the_request_and_says_why() {
        for value in ["socks5://p:1", "http://", "http://a b"] {
            let proxies = proxies(&[("http_proxy", value)]);
            let target = Target::of(&"http://a/".parse().expect("uri")).expect("target");
            let error = proxies.of_target(&target).expect_err(value).to_string();
            assert!(error.contains("http_proxy"), "{error}");
        }
    }
}
