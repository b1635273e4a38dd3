//! The addresses of the machine that guests run on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// The addresses of all interfaces that are up in this process's network
/// namespace (getifaddrs(3)). One that is down serves other ends: kube-proxy
/// keeps the addresses of services on such a one.
///
/// # Errors
/// The kernel's.
pub fn node_addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: a list is made and its beginning written to `first`.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: each entry is valid until the list is freed, and ends with null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        if entry.ifa_flags & libc::IFF_UP.cast_unsigned() == 0 {
            continue;
        }
        if let Some(address) = address(entry.ifa_addr) {
            found.push(address);
        }
    }
    // SAFETY: made above, freed once, and nothing of it is kept.
    unsafe { libc::freeifaddrs(first) };
    found.sort();
    found.dedup();
    Ok(found)
}

fn address(socket: *const libc::sockaddr) -> Option<IpAddr> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a socket's address, of a length that follows from
    // its family. It may stand anywhere, hence the unaligned reads.
    unsafe {
        match i32::from(ptr::read_unaligned(&raw const (*socket).sa_family)) {
            libc::AF_INET => {
                let v4: libc::sockaddr_in = ptr::read_unaligned(socket.cast());
                let bits = u32::from_be(v4.sin_addr.s_addr);
                Some(IpAddr::V4(Ipv4Addr::from_bits(bits)))
            }
            libc::AF_INET6 => {
                let v6: libc::sockaddr_in6 = ptr::read_unaligned(socket.cast());
                Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_can_be_bound_to_is_there() {
        let found = node_addresses().expect("addresses");
        for address in &found {
            // A scoped one takes its interface, too.
            let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !link_local {
                UdpSocket::bind((*address, 0)).expect("a node's address");
            }
        }
        assert!(
            found.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "{found:?}"
        );
    }
}
