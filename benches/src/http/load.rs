//! A client that puts a server under load.

use crate::http::connection::{Connection, Exchange, PATIENCE};
use crate::samples::Samples;
use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// On every connection as soon as the response to the one before is there:
    /// as many as the server can do.
    Closed,
    /// At random times of their own, on average so many per second, as clients do
    /// who know nothing of each other. One that finds no connection free waits
    /// for it, and its latency counts from when it was due: a server that stalls
    /// keeps nobody from asking (coordinated omission).
    Open(f64),
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// What ends in the time `measured` counts, which begins after `warm_up`.
    Time {
        warm_up: Duration,
        measured: Duration,
    },
    /// So many requests.
    Requests(u64),
}

/// What a client saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Responses per second.
    pub rate: f64,
    /// Of each request, in milliseconds.
    pub latencies: Samples,
}

/// What counts.
struct Window {
    from: Instant,
    to: Option<Instant>,
    requests: u64,
}

impl Window {
    /// Whether a request is sent then, with so many left.
    fn has(&self, time: Instant, left: u64) -> bool {
        left > 0 && self.to.is_none_or(|to| time < to)
    }
}

/// Events that are taken from the kernel at once.
const EVENTS: usize = 256;
/// Below this, the next request is waited for without sleep: the kernel's clock
/// for sleeping is too coarse.
const NEAR: Duration = Duration::from_millis(2);

struct Client<'a> {
    connections: Vec<Connection<'a>>,
    epoll: Epoll,
    /// Those without a request.
    free: Vec<usize>,
    /// When responses ended that were waited for last, and since when.
    ended: Vec<(Instant, Instant)>,
    /// When the last response of all ended.
    last: Instant,
}

/// Puts the server under load with so many connections.
///
/// # Errors
/// Any response that is not the right one: a server that fails is not measured.
pub fn run(
    address: SocketAddr,
    exchange: &Exchange,
    connections: usize,
    pace: Pace,
    extent: Extent,
) -> Result<Seen> {
    let mut client = Client::connect(address, exchange, connections)?;
    let begun = client.last;
    let window = match extent {
        Extent::Time { warm_up, measured } => Window {
            from: begun + warm_up,
            to: Some(begun + warm_up + measured),
            requests: u64::MAX,
        },
        Extent::Requests(requests) => Window {
            from: begun,
            to: None,
            requests,
        },
    };
    let latencies = match pace {
        Pace::Closed => client.closed(&window)?,
        Pace::Open(rate) => client.open(&window, rate)?,
    };
    let count = latencies.count();
    ensure!(count > 0, "no response in time");
    let time = window.to.unwrap_or(client.last) - window.from;
    Ok(Seen {
        rate: count as f64 / time.as_secs_f64(),
        latencies,
    })
}

impl<'a> Client<'a> {
    fn connect(address: SocketAddr, exchange: &'a Exchange, connections: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let connections = (0..connections)
            .map(|number| {
                let connection = Connection::new(address, exchange)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
                epoll.add(&connection.stream, event)?;
                Ok(connection)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            free: (0..connections.len()).rev().collect(),
            connections,
            epoll,
            ended: Vec::new(),
            last: Instant::now(),
        })
    }

    /// Counts what ends within the window.
    fn closed(&mut self, window: &Window) -> Result<Samples> {
        let mut latencies = Samples::default();
        let mut left = window.requests;
        loop {
            let over = window.to.is_some_and(|to| Instant::now() >= to);
            while !over && left > 0 {
                let Some(free) = self.free.pop() else { break };
                self.begin(free, Instant::now())?;
                left -= 1;
            }
            if over || (left == 0 && self.all_free()) {
                return Ok(latencies);
            }
            self.wait(EpollTimeout::try_from(PATIENCE)?)?;
            for (since, end) in self.ended.drain(..) {
                if end >= window.from && window.to.is_none_or(|to| end < to) {
                    latencies.push(milliseconds(end - since));
                }
            }
        }
    }

    /// Counts what is due within the window, whenever it ends.
    fn open(&mut self, window: &Window, rate: f64) -> Result<Samples> {
        let mut latencies = Samples::default();
        // The same times for every server.
        let mut random = StdRng::seed_from_u64(1);
        let mut pause = move || {
            let part: f64 = random.random();
            Duration::from_secs_f64(-(1.0 - part).ln() / rate)
        };
        let mut waiting = VecDeque::new();
        let mut left = window.requests;
        let mut next = self.last + pause();
        loop {
            let now = Instant::now();
            while next <= now && window.has(next, left) {
                waiting.push_back(next);
                next += pause();
                left -= 1;
            }
            let all_due = !window.has(next, left);
            while !waiting.is_empty() {
                let Some(free) = self.free.pop() else { break };
                let due = waiting.pop_front().context("it is not empty")?;
                self.begin(free, due)?;
            }
            if all_due && waiting.is_empty() && self.all_free() {
                return Ok(latencies);
            }
            let far = all_due || next.saturating_duration_since(now) > NEAR;
            self.wait(if far {
                EpollTimeout::from(1u8)
            } else {
                EpollTimeout::ZERO
            })?;
            for (since, end) in self.ended.drain(..) {
                if since >= window.from {
                    latencies.push(milliseconds(end - since));
                }
            }
        }
    }

    fn all_free(&self) -> bool {
        self.free.len() == self.connections.len()
    }

    fn begin(&mut self, number: usize, since: Instant) -> Result<()> {
        let connection = &mut self.connections[number];
        connection.begin(since)?;
        if connection.sending() {
            self.listen(number, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
        }
        Ok(())
    }

    fn listen(&self, number: usize, flags: EpollFlags) -> Result<()> {
        let mut event = EpollEvent::new(flags, number as u64);
        self.epoll
            .modify(&self.connections[number].stream, &mut event)?;
        Ok(())
    }

    /// Takes what has come by now, or comes before the timeout.
    fn wait(&mut self, timeout: EpollTimeout) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(nix::Error::EINTR) => 0,
            count => count?,
        };
        for event in &events[..count] {
            let number = usize::try_from(event.data())?;
            if event.events().contains(EpollFlags::EPOLLOUT) {
                self.connections[number].send()?;
                if !self.connections[number].sending() {
                    self.listen(number, EpollFlags::EPOLLIN)?;
                }
            }
            if let Some(since) = self.connections[number].receive()? {
                self.last = Instant::now();
                self.ended.push((since, self.last));
                self.free.push(number);
            }
        }
        ensure!(
            count > 0 || self.all_free() || self.last.elapsed() < PATIENCE,
            "no response within {PATIENCE:?}"
        );
        Ok(())
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// How long the server of [`server`] is still, once.
    const STALL: Duration = Duration::from_millis(300);

    /// A server that answers with `body`; it stalls before answer number `stall`.
    /// Answers where it is and how many requests it has had.
    fn server(body: &'static str, stall: u64) -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, count) = (stream.expect("accept"), count.clone());
                std::thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
                        head.push(byte[0]);
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            if count.fetch_add(1, Ordering::Relaxed) + 1 == stall {
                                std::thread::sleep(STALL);
                            }
                            let length = body.len();
                            let answer = format!(
                                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
                            );
                            stream.write_all(answer.as_bytes()).expect("answer");
                        }
                    }
                });
            }
        });
        (address, counted)
    }

    #[test]
    fn a_closed_loop_ends_with_the_last_response() {
        let (address, count) = server("hello\n", 0);
        let exchange = Exchange::get("/", 6);
        let seen = run(address, &exchange, 3, Pace::Closed, Extent::Requests(100));
        assert_eq!(seen.expect("responses").latencies.count(), 100);
        assert_eq!(count.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_stall_delays_all_who_are_due_meanwhile() {
        let (address, _) = server("hello\n", 20);
        let exchange = Exchange::get("/", 6);
        let pace = Pace::Open(400.0);
        let seen = run(address, &exchange, 1, pace, Extent::Requests(200)).expect("responses");
        let delayed = |latency: &&f64| **latency > milliseconds(STALL / 3);
        let delayed = seen.latencies.all().iter().filter(delayed).count();
        // A closed loop would have seen one. Of 80 that are due, by chance a few less.
        assert!(delayed > 40, "{delayed}");
    }

    #[test]
    fn a_wrong_answer_is_no_measurement() {
        let (address, _) = server("no\n", 0);
        let exchange = Exchange::get("/", 6);
        let seen = run(address, &exchange, 1, Pace::Closed, Extent::Requests(1));
        let error = format!("{:#}", seen.expect_err("a wrong answer"));
        assert_eq!(error, "a body of 3 bytes instead of 6");
    }
}
