//! Connections.

use crate::report::Report;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};

/// Tries each target. Only the host's refusal counts as one; a target that could
/// not be reached might have been.
pub fn all(protocol: &str, targets: &[&str], report: &mut Report) -> Result<(), String> {
    let one = match protocol {
        "tcp" => tcp,
        "udp" => udp,
        _ => return Err(format!("{protocol:?} is neither tcp nor udp")),
    };
    for target in targets {
        let what = format!("{protocol} {target}");
        match one(target) {
            // The second is what is no address to anybody, such as IPv4 in IPv6.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::InvalidInput
                ) =>
            {
                report.attempt(what, Err::<(), _>(error.kind()));
            }
            Err(error) => report.in_vain(what, error),
            Ok(()) => report.attempt(what, Ok::<_, ()>(())),
        }
    }
    Ok(())
}

fn tcp(target: &str) -> io::Result<()> {
    TcpStream::connect(target).map(drop)
}

fn udp(target: &str) -> io::Result<()> {
    let address = target
        .to_socket_addrs()?
        .next()
        .ok_or(ErrorKind::NotFound)?;
    let own = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    UdpSocket::bind(own)?.send_to(b"x", address).map(drop)
}
