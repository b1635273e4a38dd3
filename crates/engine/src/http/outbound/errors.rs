//! What a guest is told of a request that failed.

use std::error::Error as _;
use std::io;

use tokio_rustls::rustls;
use wasmtime_wasi_http::Error;

/// Of an exchange on a connection.
pub fn of_exchange(error: hyper::Error) -> Error {
    if error.is_timeout() {
        return Error::HttpResponseTimeout;
    }
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(None);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Error::ConnectionTerminated;
    }
    let broken = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| is_broken(source.kind()));
    match broken {
        true => Error::ConnectionTerminated,
        false => Error::Hyper(error),
    }
}

/// Of a response's body.
pub fn of_body(error: hyper::Error) -> Error {
    match error.is_incomplete_message() {
        true => Error::HttpResponseIncomplete,
        false => of_exchange(error),
    }
}

/// Of connecting to an address.
pub fn of_connect(error: io::Error) -> Error {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match error.kind() {
        ConnectionRefused => Error::ConnectionRefused,
        TimedOut => Error::ConnectionTimeout,
        HostUnreachable | NetworkUnreachable => Error::DestinationIpUnroutable,
        _ => Error::Connect(error),
    }
}

/// Of the beginning of TLS.
pub fn of_tls(error: io::Error) -> Error {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Error::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => Error::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => Error::TlsProtocolError,
        None if is_broken(error.kind()) => Error::ConnectionTerminated,
        None => Error::Tls(error),
    }
}

/// Of what only the pod's author can mend; the guest may tell.
pub fn of_settings(problem: String) -> Error {
    Error::InternalError(Some(problem))
}

fn is_broken(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
