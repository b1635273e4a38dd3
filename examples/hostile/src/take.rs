//! As much as there is of something.

use crate::files::{open, preopen};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::random::random::get_random_bytes;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// Far more than anybody gets.
const MANY: usize = 10_000_000;

/// Bytes in one call, of which the host makes a copy.
const TEXT: usize = 16 << 20;

/// Takes one after the other and keeps them all, until there are no more.
pub fn all(what: &str) -> Result<(), String> {
    match what {
        "files" => {
            let root = preopen("/")?;
            keep(|| open(&root, "hostile.wasm").map_err(|error| format!("{error:?}")))
        }
        "sockets" => {
            keep(|| create_tcp_socket(IpAddressFamily::Ipv4).map_err(|error| format!("{error:?}")))
        }
        "timers" => keep(|| Ok(subscribe_duration(u64::MAX))),
        "lookups" => {
            let network = instance_network();
            keep(|| resolve_addresses(&network, "localhost").map_err(|error| format!("{error:?}")))
        }
        // These end the guest if all is well.
        "random" => println!("REACHED {}", get_random_bytes(u64::MAX / 2).len()),
        "text" => {
            let text = "x".repeat(TEXT);
            let answer = resolve_addresses(&instance_network(), &text);
            println!("REACHED {TEXT} bytes: {}", answer.is_ok());
        }
        _ => return Err(format!("{what:?} cannot be taken")),
    }
    Ok(())
}

fn keep<T>(mut one: impl FnMut() -> Result<T, String>) {
    let mut kept = Vec::new();
    while kept.len() < MANY {
        match one() {
            Ok(taken) => kept.push(taken),
            Err(error) => {
                println!("no more after {}: {error}", kept.len());
                return;
            }
        }
    }
    println!("REACHED {MANY}");
}
