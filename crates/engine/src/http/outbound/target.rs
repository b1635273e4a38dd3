//! Whom a request is for.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::header::HeaderValue;
use http::uri::{Authority, Scheme as UriScheme};
use wasmtime_wasi_http::Error;
use wisp_capability::Scheme;

/// A scheme, a host and a port: what a grant is about, and what a connection
/// is kept for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub scheme: Scheme,
    /// A name or the text of an address without brackets, in lower case.
    pub host: String,
    pub port: u16,
}

impl Target {
    /// # Errors
    /// Another scheme than HTTP's, or no host.
    pub fn of(uri: &Uri) -> Result<Self, Error> {
        let (scheme, default_port) = match uri.scheme() {
            Some(scheme) if *scheme == UriScheme::HTTP => (Scheme::Http, 80),
            Some(scheme) if *scheme == UriScheme::HTTPS => (Scheme::Https, 443),
            _ => return Err(Error::HttpProtocolError),
        };
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.is_empty() {
            return Err(Error::HttpRequestUriInvalid);
        }
        Ok(Self {
            scheme,
            host: bare.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(default_port),
        })
    }

    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The address, where the host is the text of one.
    pub fn literal(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it is this machine, by whatever way it is asked.
    pub fn is_here(&self) -> bool {
        let name = self.host.strip_suffix('.').unwrap_or(&self.host);
        name == "localhost"
            || name.ends_with(".localhost")
            || self
                .literal()
                .is_some_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The authority without the user's name and password, which are for nobody
/// else to see.
///
/// # Errors
/// A URI without one.
pub fn authority(uri: &Uri) -> Result<Authority, Error> {
    let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    match authority.as_str().rsplit_once('@') {
        None => Ok(authority.clone()),
        Some((_, rest)) => rest.parse().map_err(|_| Error::HttpRequestUriInvalid),
    }
}

/// What the Host field says.
///
/// # Errors
/// An authority that no field can have.
pub fn host_field(authority: &Authority) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(authority.as_str()).map_err(|_| Error::HttpRequestUriInvalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<String, Error> {
        let target = Target::of(&uri.parse().expect("uri"))?;
        Ok(format!("{} {target}", target.scheme))
    }

    #[test]
    fn a_target_is_what_the_uri_says() {
        for (uri, expected) in [
            ("http://a.example/x", "http a.example:80"),
            ("https://A.Example", "https a.example:443"),
            ("https://a.example:8443/", "https a.example:8443"),
            ("http://[::1]/", "http [::1]:80"),
            ("http://me:secret@a.example/", "http a.example:80"),
        ] {
            assert_eq!(target(uri).expect(uri), expected);
        }
        assert!(target("ftp://a.example/").is_err());
        assert!(target("/only/a/path").is_err());
    }

    #[test]
    fn nobody_is_told_the_users_password() {
        let uri = "http://me:secret@a.example:81/x".parse().expect("uri");
        assert_eq!(authority(&uri).expect("authority").as_str(), "a.example:81");
    }

    #[test]
    fn this_machine_has_several_names() {
        let here = |uri: &str| Target::of(&uri.parse().expect("uri")).expect(uri).is_here();
        for uri in [
            "http://localhost:1/",
            "http://x.localhost./",
            "http://127.9.9.9/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            assert!(here(uri), "{uri}");
        }
        assert!(!here("http://localhost.example/"));
        assert!(!here("http://10.0.0.1/"));
    }
}
