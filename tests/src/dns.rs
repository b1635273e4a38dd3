//! A name server that knows one name.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running server, until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers `name` with `address`, and that there is no other, at port 53.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn start(at: Ipv4Addr, name: &'static str, address: Ipv4Addr) -> Result<Self> {
        Self::changing(at, name, vec![address])
    }

    /// The same with another of `addresses` each time, one after the other.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn changing(at: Ipv4Addr, name: &'static str, addresses: Vec<Ipv4Addr>) -> Result<Self> {
        let socket = UdpSocket::bind((at, 53)).with_context(|| format!("bind {at}:53"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stopped, heard) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            let mut next = addresses.iter().cycle();
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                let Some(query) = Query::parse(&packet[..length]) else {
                    continue;
                };
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(query.name.clone());
                // Only a question that gets an address takes one.
                let address = (query.kind() == TYPE_A).then(|| next.next()).flatten();
                let _ = socket.send_to(&query.answer(name, address.copied()), from);
            }
        });
        Ok(Self {
            stop,
            asked,
            thread: Some(thread),
        })
    }

    /// The names that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A question (RFC 1035, section 4).
struct Query<'a> {
    id: &'a [u8],
    name: String,
    question: &'a [u8],
}

const TYPE_A: u16 = 1;

impl<'a> Query<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let id = packet.get(..2)?;
        let mut at = 12;
        let mut labels = Vec::new();
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
            at += length;
        }
        Some(Self {
            id,
            name: labels.join("."),
            question: packet.get(12..at + 4)?,
        })
    }

    fn kind(&self) -> u16 {
        let end = self.question.len();
        u16::from_be_bytes([self.question[end - 4], self.question[end - 3]])
    }

    fn answer(&self, name: &str, address: Option<Ipv4Addr>) -> Vec<u8> {
        let known = self.name == name;
        let address = address.filter(|_| known);
        let answers = u8::from(address.is_some());
        // A response, recursion available; code 3 says that there is no such name.
        let code = if known { 0 } else { 3 };
        let mut packet = self.id.to_vec();
        packet.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
        packet.extend(self.question);
        if let Some(address) = address {
            // The name is the one at offset 12; type A, class IN, a minute, 4 bytes.
            packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            packet.extend(address.octets());
        }
        packet
    }
}
