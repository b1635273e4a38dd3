//! A pod's annotations, its environment and its arguments.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use wisp_capability::{
    Ceiling, Grant, Policy, Request, RootAccess, Rules, Scheme, Terms, Volume, grant,
};

/// What no policy of below lets through, whatever is asked.
const MOST_OUTBOUND: &str = "https://*.example.com, tcp://10.0.0.0/8:5432, udp://*:53";
const MOST_MEMORY: u64 = 64 << 20;

/// Addresses that tell rules apart.
const ADDRESSES: [&str; 10] = [
    "10.1.2.3:5432",
    "10.1.2.3:80",
    "11.0.0.1:5432",
    "127.0.0.1:53",
    "169.254.169.254:53",
    "[::ffff:169.254.169.254]:53",
    "[64:ff9b::a9fe:a9fe]:80",
    "[fe80::1]:53",
    "192.0.2.7:53",
    "[2001:db8::7]:443",
];

const SCHEMES: [Scheme; 4] = [Scheme::Tcp, Scheme::Udp, Scheme::Http, Scheme::Https];

/// The node's own among them.
const NODE: &str = "192.0.2.7";

/// A line each: `key=value` is an annotation, `$name=value` a variable, and
/// anything else an argument.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut annotations, mut env, mut args) = (BTreeMap::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        match (line.strip_prefix('$'), line.split_once('=')) {
            (Some(variable), _) => env.push(variable.to_owned()),
            (None, Some((key, value))) => {
                annotations.insert(key.to_owned(), value.to_owned());
            }
            (None, None) => args.push(line.to_owned()),
        }
    }
    if args.is_empty() {
        args.push("app.wasm".into());
    }
    let volume = Volume {
        destination: "/data".into(),
        read_only: false,
        is_dir: true,
    };
    for policy in [Policy::default(), bounded()] {
        let granted = grant(&Request {
            args: &args,
            env: &env,
            cwd: args.last().map_or("", String::as_str),
            annotations: &annotations,
            mounts: std::slice::from_ref(&volume),
            root_readonly: true,
            host_network: true,
            memory_limit: Some(32 << 20),
            namespace: "team",
            policy: &policy,
        });
        match granted {
            Ok(granted) => {
                check(&granted, &annotations);
                if policy != Policy::default() {
                    check_ceiling(&granted);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn bounded() -> Policy {
    Policy {
        node: Terms {
            ceiling: Ceiling {
                fs_root: Some(RootAccess::Ro),
                net_outbound: Rules::parse(MOST_OUTBOUND).ok(),
                net_listen: Some(Rules::default()),
                memory_max: Some(MOST_MEMORY),
                ..Ceiling::default()
            },
            ..Terms::default()
        },
        ..Policy::default()
    }
}

/// What holds for every grant.
fn check(granted: &Grant, annotations: &BTreeMap<String, String>) {
    assert!(!granted.args.is_empty() && granted.cwd.starts_with('/'));
    assert_ne!(granted.root, RootAccess::Rw, "the root is read-only");
    for preopen in &granted.preopens {
        let mut parts = preopen.guest.split('/');
        assert!(preopen.guest.starts_with('/') && parts.all(|part| part != ".."));
    }
    let unasked = annotations
        .keys()
        .all(|key| !key.starts_with("io.wisp.net."))
        && !annotations.contains_key("io.wisp.profile");
    if unasked {
        assert!(granted.outbound.is_empty() && granted.listen.is_empty());
    }
    let mut rules = granted.outbound.clone();
    let node: IpAddr = NODE.parse().expect("address");
    rules.set_node(&[node]);
    let text = annotations.get("io.wisp.net.outbound");
    let names = |part: &str| text.is_some_and(|text| text.contains(part));
    for scheme in SCHEMES {
        for address in ADDRESSES {
            let address: SocketAddr = address.parse().expect("address");
            let allowed = rules.allows_addr(scheme, address, true);
            // However it is written.
            let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
            assert_eq!(allowed, rules.allows_addr(scheme, canonical, true));
            // What has to be named has been: the texts of these cannot be left out.
            let named = match address.ip().to_canonical() {
                IpAddr::V4(v4) if v4.is_link_local() => names("169.254") || names("a9fe"),
                IpAddr::V4(v4) if v4.is_loopback() => names("127.") || names("7f"),
                ip if ip == node => names("192.0.2.7") || names("c000:"),
                _ => true,
            };
            assert!(!allowed || named, "{scheme} {address} by {text:?}");
            if let Some(ip) = text.map(|_| address.ip()) {
                // An answer of a name server grants no more than the address.
                let by_name = rules.allows_resolved(scheme, &ip.to_string(), address, true);
                assert_eq!(by_name, allowed);
            }
        }
    }
}

/// What holds whatever is asked, by the policy.
fn check_ceiling(granted: &Grant) {
    assert_ne!(granted.root, RootAccess::Rw);
    assert!(granted.listen.is_empty());
    let most = granted.limits.in_sum(None).map(|cap| cap.bytes);
    assert!(most.is_some_and(|most| most <= MOST_MEMORY));
    let ceiling = Rules::parse(MOST_OUTBOUND).expect("rules");
    for scheme in SCHEMES {
        for address in ADDRESSES {
            let address: SocketAddr = address.parse().expect("address");
            let allowed = granted.outbound.allows_addr(scheme, address, false);
            assert!(
                !allowed || ceiling.allows_addr(scheme, address, false),
                "{scheme} {address} beyond the ceiling"
            );
        }
        for host in ["example.com", "a.example.com", "b.a.example.com", "x"] {
            let allowed = granted.outbound.allows_name(scheme, host, 443);
            assert!(
                !allowed || ceiling.allows_name(scheme, host, 443),
                "{scheme} {host} beyond the ceiling"
            );
        }
    }
}
