//! Connections that wait for the next request to the same target.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};

use super::sent::Sent;
use super::target::Target;

/// How many connections wait at most.
const MOST: usize = 128;

/// How long one waits.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection is used, so that a name that leads elsewhere by now
/// is followed there.
const LIFE: Duration = Duration::from_secs(300);

/// How often those whose time is over are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// A connection that nobody uses, or that has room for more.
pub struct Link {
    pub wire: Wire,
    /// The target's, or the proxy's where there is one: what was checked when
    /// it was made, and is again whenever it is used.
    pub peer: Peer,
    pub made: Instant,
}

/// How requests are put on it.
pub enum Wire {
    One(http1::SendRequest<Sent>),
    Many(http2::SendRequest<Sent>, InUse),
}

/// Whom a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Target(SocketAddr),
    Proxy(SocketAddr),
}

/// As long as another of its kind lives, so does an exchange on the connection.
#[derive(Clone)]
pub struct InUse(Arc<()>);

/// All of them.
pub struct Kept {
    me: Weak<Kept>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those used last are at the end.
    idle: Vec<Idle>,
    sweeping: bool,
}

struct Idle {
    target: Target,
    /// The thread whose event loop moves its bytes. Others leave it alone: that
    /// would wake two threads for each piece.
    home: ThreadId,
    link: Link,
    since: Instant,
}

impl InUse {
    pub fn new() -> Self {
        Self(Arc::new(()))
    }

    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Link {
    fn is_usable(&self, now: Instant) -> bool {
        let open = match &self.wire {
            Wire::One(sender) => sender.is_ready(),
            Wire::Many(sender, _) => !sender.is_closed(),
        };
        open && now.duration_since(self.made) < LIFE
    }

    /// Another way to the same connection, where several fit on it.
    fn share(&self) -> Option<Self> {
        match &self.wire {
            Wire::One(_) => None,
            Wire::Many(sender, in_use) => Some(Self {
                wire: Wire::Many(sender.clone(), in_use.clone()),
                peer: self.peer,
                made: self.made,
            }),
        }
    }
}

impl Kept {
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            state: Mutex::default(),
        })
    }

    /// A connection to `target` that leads where `allowed` says one may go.
    pub fn take(&self, target: &Target, allowed: impl Fn(Peer) -> bool) -> Option<Link> {
        let (now, home) = (Instant::now(), thread::current().id());
        let mut state = self.state();
        let mut place = state.idle.len();
        while place > 0 {
            place -= 1;
            let found = state.idle.get_mut(place)?;
            if found.target != *target || found.home != home {
                continue;
            }
            if !found.link.is_usable(now) || !allowed(found.link.peer) {
                state.idle.remove(place);
                continue;
            }
            if let Some(shared) = found.link.share() {
                found.since = now;
                return Some(shared);
            }
            return Some(state.idle.remove(place).link);
        }
        None
    }

    /// Keeps a connection to `target` for the next request.
    pub fn put(&self, target: Target, link: Link) {
        let now = Instant::now();
        if !link.is_usable(now) {
            return;
        }
        let mut state = self.state();
        state.idle.push(Idle {
            target,
            home: thread::current().id(),
            link,
            since: now,
        });
        if state.idle.len() > MOST {
            state.idle.remove(0);
        }
        if !state.sweeping {
            state.sweeping = true;
            tokio::spawn(sweep(self.me.clone()));
        }
    }

    /// Closes the one that has waited longest.
    pub fn make_room(&self) {
        let mut state = self.state();
        let oldest = state
            .idle
            .iter()
            .position(|idle| !matches!(&idle.link.wire, Wire::Many(_, used) if used.is_shared()));
        if let Some(oldest) = oldest {
            state.idle.remove(oldest);
        }
    }

    /// Closes what has waited for too long; says whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.idle.retain_mut(|idle| {
            if let Wire::Many(_, in_use) = &idle.link.wire
                && in_use.is_shared()
            {
                idle.since = now;
            }
            idle.link.is_usable(now) && now.duration_since(idle.since) < IDLE
        });
        state.sweeping = !state.idle.is_empty();
        state.sweeping
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole connections come and go, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs only while there is something to look at.
async fn sweep(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match kept.upgrade() {
            Some(kept) if kept.sweep(Instant::now()) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::DuplexStream;
    use wisp_capability::Scheme;

    use super::*;

    fn target(host: &str) -> Target {
        Target {
            scheme: Scheme::Http,
            host: host.into(),
            port: 80,
        }
    }

    fn peer(last: u8) -> Peer {
        Peer::Target(SocketAddr::from(([10, 0, 0, last], 80)))
    }

    /// A connection and its other end, without which it is closed.
    async fn link(last: u8) -> (Link, DuplexStream) {
        let (near, far) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.expect("link");
        tokio::spawn(connection);
        sender.ready().await.expect("ready");
        let link = Link {
            wire: Wire::One(sender),
            peer: peer(last),
            made: Instant::now(),
        };
        (link, far)
    }

    #[tokio::test]
    async fn a_connection_is_for_its_own_target_and_for_one_request() {
        let kept = Kept::new();
        let (link, _far) = link(1).await;
        kept.put(target("a.example"), link);
        assert!(kept.take(&target("b.example"), |_| true).is_none());
        let other = Target {
            scheme: Scheme::Https,
            ..target("a.example")
        };
        assert!(kept.take(&other, |_| true).is_none());
        assert!(kept.take(&target("a.example"), |_| true).is_some());
        assert!(kept.take(&target("a.example"), |_| true).is_none());
    }

    #[tokio::test]
    async fn where_it_leads_is_checked_again() {
        let kept = Kept::new();
        let (one, _far) = link(1).await;
        kept.put(target("a.example"), one);
        assert!(
            kept.take(&target("a.example"), |to| to != peer(1))
                .is_none()
        );
        // It is of no use any more.
        assert!(kept.take(&target("a.example"), |_| true).is_none());
    }

    #[tokio::test]
    async fn one_that_the_server_has_closed_is_not_used() {
        let kept = Kept::new();
        let (one, far) = link(1).await;
        kept.put(target("a.example"), one);
        drop(far);
        while kept
            .state()
            .idle
            .iter()
            .any(|idle| idle.link.is_usable(Instant::now()))
        {
            tokio::task::yield_now().await;
        }
        assert!(kept.take(&target("a.example"), |_| true).is_none());
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded_in_number_and_time() {
        let kept = Kept::new();
        let mut ends = Vec::new();
        for _ in 0..=MOST {
            let (one, far) = link(1).await;
            kept.put(target("a.example"), one);
            ends.push(far);
        }
        assert_eq!(kept.state().idle.len(), MOST);
        kept.make_room();
        assert_eq!(kept.state().idle.len(), MOST - 1);
        assert!(kept.sweep(Instant::now()), "they may wait");
        assert!(!kept.sweep(Instant::now() + IDLE), "not any longer");
        assert!(kept.state().idle.is_empty());
    }
}
