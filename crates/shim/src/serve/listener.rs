//! Accepting containerd's connections, also while descriptors run out.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use containerd_shim::protos::ttrpc::asynchronous::transport::Listener;
use futures_core::Stream;
use log::{info, warn};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};

/// How long to leave a connection that cannot be accepted in its queue.
const PAUSE: Duration = Duration::from_millis(100);

/// The listener for ttrpc's server.
///
/// # Errors
/// When the socket cannot be watched.
pub fn listen(listener: StdListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    Ok(Listener::new(Patient {
        listener: UnixListener::from_std(listener)?,
        pause: None,
        failing: false,
    }))
}

/// A connection that the kernel cannot give us stays in the queue, so the
/// socket remains readable: asking again at once would be a busy loop, with a
/// line in the log each time.
#[derive(Debug)]
struct Patient {
    listener: UnixListener,
    pause: Option<Pin<Box<Sleep>>>,
    failing: bool,
}

impl Stream for Patient {
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    if std::mem::take(&mut self.failing) {
                        info!("connections are accepted again");
                    }
                    return Poll::Ready(Some(Ok(stream)));
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        warn!("a connection cannot be accepted yet: {error}");
                    }
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}
