//! Sockets, where the guest is granted any. Preview 1 has none to open: there
//! each of these fails with the standard library's own error.

use crate::{Outcome, argument};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

/// Connects, prints the peer's address, and copies what the peer sends.
pub fn tcp_connect(arguments: &[String]) -> Outcome {
    let target = argument(arguments, 0, "host:port")?;
    let mut stream = TcpStream::connect(target).map_err(|e| format!("{target}: {e}"))?;
    let peer = stream.peer_addr().map_err(|e| e.to_string())?;
    println!("connected to {peer}");
    std::io::copy(&mut stream, &mut std::io::stdout().lock()).map_err(|e| e.to_string())?;
    Ok(())
}

/// Listens, says where, accepts one connection and echoes it to its end.
pub fn tcp_listen(arguments: &[String]) -> Outcome {
    let address = argument(arguments, 0, "address:port")?;
    let listener = TcpListener::bind(address).map_err(|e| format!("{address}: {e}"))?;
    let bound = listener.local_addr().map_err(|e| e.to_string())?;
    println!("listening on {bound}");
    let (mut stream, _) = listener.accept().map_err(|e| e.to_string())?;
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).map_err(|e| e.to_string())?;
        if read == 0 {
            return Ok(());
        }
        stream
            .write_all(&buffer[..read])
            .map_err(|e| e.to_string())?;
    }
}

/// Sends one datagram.
pub fn udp_send(arguments: &[String]) -> Outcome {
    let target = argument(arguments, 0, "host:port")?;
    let text = argument(arguments, 1, "a text")?;
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|e| e.to_string())?;
    let sent = socket
        .send_to(text.as_bytes(), target)
        .map_err(|e| format!("{target}: {e}"))?;
    println!("sent {sent} bytes");
    Ok(())
}

/// Prints the addresses of a name.
pub fn resolve(arguments: &[String]) -> Outcome {
    let host = argument(arguments, 0, "a host name")?;
    for address in (host, 0)
        .to_socket_addrs()
        .map_err(|e| format!("{host}: {e}"))?
    {
        println!("{}", address.ip());
    }
    Ok(())
}
