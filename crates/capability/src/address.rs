//! Kinds of addresses that `*` does not cover.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of addresses, as in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    network: IpAddr,
    prefix: u8,
}

impl Block {
    /// `None` when the prefix is longer than the address or bits are set
    /// behind it.
    pub fn new(network: IpAddr, prefix: u8) -> Option<Self> {
        let block = Self { network, prefix };
        let valid = prefix <= width(network) && block.mask(network) == bits(network);
        valid.then_some(block)
    }

    pub fn single(address: IpAddr) -> Self {
        Self {
            network: address,
            prefix: width(address),
        }
    }

    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self {
            network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    const fn v6(segments: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = segments;
        Self {
            network: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)),
            prefix,
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4() && self.mask(address) == bits(self.network)
    }

    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.network)
    }

    fn mask(&self, address: IpAddr) -> u128 {
        let host = u32::from(width(address).saturating_sub(self.prefix));
        bits(address).checked_shr(host).map_or(0, |kept| {
            // A shift by the whole width is a mask of nothing.
            kept.checked_shl(host).unwrap_or(0)
        })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prefix == width(self.network), self.network) {
            (true, IpAddr::V4(v4)) => write!(f, "{v4}"),
            (true, IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            (false, IpAddr::V4(v4)) => write!(f, "{v4}/{}", self.prefix),
            (false, IpAddr::V6(v6)) => write!(f, "[{v6}/{}]", self.prefix),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Link-local addresses and the services that clouds offer to a node: whoever
/// reaches them can often act as the node.
const NODE: [Block; 6] = [
    Block::v4(169, 254, 0, 0, 16),
    Block::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    Block::v4(100, 100, 100, 200, 32),
    Block::v4(168, 63, 129, 16, 32),
    Block::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    Block::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
];

/// The host itself; an unspecified address as destination is the host too.
const LOOPBACK: [Block; 4] = [
    Block::v4(127, 0, 0, 0, 8),
    Block::v4(0, 0, 0, 0, 8),
    Block::v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    Block::v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
];

/// What must be named to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ordinary,
    Loopback,
    Node,
}

/// The kind of `address`, which must be [`canonical`].
pub fn kind(address: IpAddr) -> Kind {
    if NODE.iter().any(|block| block.contains(address)) {
        Kind::Node
    } else if LOOPBACK.iter().any(|block| block.contains(address)) {
        Kind::Loopback
    } else {
        Kind::Ordinary
    }
}

/// Whether `block` lies within what is of one kind: only then does a rule with
/// it name that kind. `0.0.0.0/0` is `*` by another name.
pub fn names_kind(block: &Block, kind: Kind) -> bool {
    let within = |blocks: &[Block]| blocks.iter().any(|outer| outer.covers(block));
    match kind {
        Kind::Ordinary => true,
        Kind::Loopback => within(&LOOPBACK),
        Kind::Node => within(&NODE),
    }
}

/// Whether `block` names nothing that must be named. One that is wider than
/// what must be named does not name it.
pub fn is_ordinary(block: &Block) -> bool {
    !names_kind(block, Kind::Loopback) && !names_kind(block, Kind::Node)
}

/// The address that is really meant: IPv4 inside IPv6 (mapped, or behind the
/// well-known NAT64 prefix) becomes IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() {
        let bits = u32::from(high) << 16 | u32::from(low);
        return IpAddr::V4(Ipv4Addr::from_bits(bits));
    }
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn kinds_are_seen_through_disguises() {
        for (address, expected) in [
            ("169.254.169.254", Kind::Node),
            ("::ffff:169.254.169.254", Kind::Node),
            ("64:ff9b::a9fe:a9fe", Kind::Node),
            ("fe80::1", Kind::Node),
            ("febf::1", Kind::Node),
            ("fec0::1", Kind::Ordinary),
            ("fd00:ec2::254", Kind::Node),
            ("127.9.9.9", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("::ffff:127.0.0.1", Kind::Loopback),
            ("0.0.0.0", Kind::Loopback),
            ("::", Kind::Loopback),
            ("10.0.0.1", Kind::Ordinary),
            ("2001:db8::1", Kind::Ordinary),
        ] {
            assert_eq!(kind(canonical(ip(address))), expected, "{address}");
        }
    }

    #[test]
    fn blocks_contain_what_their_prefix_says() {
        let block = Block::new(ip("10.1.0.0"), 16).expect("block");
        assert!(block.contains(ip("10.1.255.255")));
        assert!(!block.contains(ip("10.2.0.0")));
        assert!(!block.contains(ip("::1")));
        let all = Block::new(ip("0.0.0.0"), 0).expect("all");
        assert!(all.contains(ip("255.255.255.255")));
        assert!(!all.contains(ip("::")));
        let all = Block::new(ip("::"), 0).expect("all");
        assert!(all.contains(ip("ffff::")));
        assert_eq!(Block::new(ip("10.0.0.1"), 8), None);
        assert_eq!(Block::new(ip("10.0.0.0"), 33), None);
    }

    #[test]
    fn only_a_block_within_a_kind_names_it() {
        let block = |address, prefix| Block::new(ip(address), prefix).expect("block");
        assert!(!names_kind(&block("0.0.0.0", 0), Kind::Node));
        assert!(!names_kind(&block("169.0.0.0", 8), Kind::Node));
        assert!(names_kind(&block("169.254.0.0", 16), Kind::Node));
        assert!(names_kind(&block("169.254.169.254", 32), Kind::Node));
        assert!(!names_kind(&block("0.0.0.0", 0), Kind::Loopback));
        assert!(names_kind(&block("127.0.0.0", 8), Kind::Loopback));
        assert!(names_kind(&block("10.0.0.0", 8), Kind::Ordinary));
    }
}
