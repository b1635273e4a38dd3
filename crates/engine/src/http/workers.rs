//! The threads that serve connections: each has its own event loop, its own
//! instances and its own connections, and a connection stays with the thread
//! that it was given to.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::connections::Opened;
use super::cores::Cores;
use super::request::Service;
use crate::event_loop::event_loop;

/// How many connections a thread has before another one is started. A server
/// with little to do, as most are most of the time, stays at one thread and its
/// memory.
const BEFORE_MORE: usize = 2;

/// No more threads than these, whatever the node has.
const MOST: usize = 64;

/// What a thread needs beside the guest's stacks, which are not its own.
const STACK: usize = 2 << 20;

/// All threads.
pub struct Workers {
    cores: Cores,
    /// What the first thread, which is the process's own, serves with.
    service: Arc<Service>,
    /// Of the first thread.
    open: Count,
    others: Vec<Worker>,
}

struct Worker {
    open: Count,
    given: mpsc::UnboundedSender<Given>,
}

/// A connection on its way to its thread.
struct Given {
    stream: std::net::TcpStream,
    opened: Opened,
    counted: Counted,
}

/// How many connections a thread has.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

/// One of them, as long as it lives.
struct Counted(Count);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn one_more(&self) -> Counted {
        self.0.fetch_add(1, Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl Workers {
    pub fn new(service: Arc<Service>, cores: Cores) -> Self {
        Self {
            cores,
            service,
            open: Count::default(),
            others: Vec::new(),
        }
    }

    /// Gives a connection to the thread that has the fewest, of as many threads
    /// as there are processors for by now.
    ///
    /// # Errors
    /// The connection could not be moved to another thread.
    pub fn give(&mut self, stream: TcpStream, opened: Opened) -> io::Result<()> {
        match self.choose() {
            None => {
                let counted = self.open.one_more();
                let service = self.service.clone();
                tokio::spawn(async move {
                    opened.serve(service, stream).await;
                    drop(counted);
                });
            }
            Some(worker) => {
                let given = Given {
                    stream: stream.into_std()?,
                    opened,
                    counted: worker.open.one_more(),
                };
                worker
                    .given
                    .send(given)
                    .map_err(|_| io::Error::other("its thread has ended"))?;
            }
        }
        Ok(())
    }

    /// The thread for the next connection; `None` is the first.
    fn choose(&mut self) -> Option<&Worker> {
        let most = self.cores.count().min(MOST);
        let (mut fewest, mut place) = (self.open.get(), None);
        for (number, worker) in self.others.iter().enumerate().take(most - 1) {
            if worker.open.get() < fewest {
                (fewest, place) = (worker.open.get(), Some(number));
            }
        }
        if fewest >= BEFORE_MORE && self.others.len() + 1 < most {
            // Where there is no thread to be had, those that are there do.
            if let Ok(worker) = Worker::start(&self.service) {
                place = Some(self.others.len());
                self.others.push(worker);
            }
        }
        self.others.get(place?)
    }
}

impl Worker {
    fn start(service: &Service) -> io::Result<Self> {
        let service = Arc::new(service.beside());
        let (given, queue) = mpsc::unbounded_channel();
        let runtime = event_loop()?;
        std::thread::Builder::new()
            .name("wisp-http".into())
            .stack_size(STACK)
            .spawn(move || {
                wisp_heap::keep();
                runtime.block_on(work(service, queue));
            })?;
        Ok(Self {
            open: Count::default(),
            given,
        })
    }
}

/// Serves what it is given, for as long as the process lives.
async fn work(service: Arc<Service>, mut queue: mpsc::UnboundedReceiver<Given>) -> Infallible {
    if service.instances.keeps() {
        tokio::spawn(super::server::forget(service.clone()));
    }
    while let Some(given) = queue.recv().await {
        let Given {
            stream,
            opened,
            counted,
        } = given;
        let service = service.clone();
        tokio::spawn(async move {
            // One that the event loop does not take is closed.
            if let Ok(stream) = TcpStream::from_std(stream) {
                opened.serve(service, stream).await;
            }
            drop(counted);
        });
    }
    // What it was given may still be served.
    pending().await
}
