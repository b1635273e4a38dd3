//! Instances that work on several requests at once, as those of 0.3 can.

mod course;
mod drive;
mod load;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;
use wisp_capability::HttpServer;

use super::answer::Answer;
use super::instance::Maker;
use super::request::Held;
use super::spare::Spare;
use load::Load;

/// The instances of one thread.
pub struct Shared {
    maker: Arc<Maker>,
    spare: Arc<Spare>,
    bounds: Bounds,
    /// What each instance has to do. The newest is asked first, so that the
    /// others come to their end.
    loads: Mutex<Vec<Arc<Load>>>,
}

/// What one instance may do.
#[derive(Clone, Copy)]
struct Bounds {
    /// Requests in all.
    reuse: u32,
    /// Requests at once.
    concurrency: u32,
    /// How long it may go on after it was given its last request.
    work: Duration,
}

/// A request on its way to an instance.
struct Job {
    request: Request<WasiBody>,
    answer: Arc<Answer>,
    held: Held,
    over: Over,
}

/// Where it is told how a request ended. It is closed when nobody wants to know
/// any more, because the request took too long.
type Over = oneshot::Sender<wasmtime::Result<()>>;

impl Shared {
    pub fn new(maker: Arc<Maker>, settings: &HttpServer, spare: Arc<Spare>) -> Arc<Self> {
        let bounds = Bounds {
            reuse: settings.reuse,
            concurrency: settings.concurrency,
            work: settings.work_timeout,
        };
        Self::with(maker, bounds, spare)
    }

    /// The same for another thread.
    pub fn beside(&self) -> Arc<Self> {
        Self::with(self.maker.clone(), self.bounds, self.spare.clone())
    }

    fn with(maker: Arc<Maker>, bounds: Bounds, spare: Arc<Spare>) -> Arc<Self> {
        Arc::new(Self {
            maker,
            spare,
            bounds,
            loads: Mutex::default(),
        })
    }

    /// Has some instance handle `request`, until its response is complete. When
    /// what this returns is dropped before that, the instance gets no further
    /// request, and ends when no other request needs it.
    ///
    /// # Errors
    /// Whatever ends the instance.
    pub async fn serve(
        self: &Arc<Self>,
        request: Request<WasiBody>,
        answer: &Arc<Answer>,
        held: Held,
    ) -> wasmtime::Result<()> {
        let (over, ended) = oneshot::channel();
        let load = self.give(Box::new(Job {
            request,
            answer: answer.clone(),
            held,
            over,
        }));
        if let Some(load) = load {
            load.go_on();
        }
        match ended.await {
            Ok(result) => result,
            Err(_) => wasmtime::bail!("its instance ended without a word"),
        }
    }

    /// Gives a request to an instance that can take it, or to a new one. Answers
    /// which it is that is there already, and is to go on or to be woken.
    fn give(self: &Arc<Self>, mut job: Box<Job>) -> Option<Arc<Load>> {
        let mut loads = self.loads();
        for load in loads.iter().rev() {
            match load.offer(job) {
                Ok(()) => return Some(load.clone()),
                Err(refused) => job = refused,
            }
        }
        let load = Arc::new(Load::new(self.bounds, job));
        loads.push(load.clone());
        tokio::spawn(drive::run(self.clone(), load));
        None
    }

    /// Gives requests that their instance does not get to.
    fn give_again(self: &Arc<Self>, jobs: impl IntoIterator<Item = Box<Job>>) {
        for job in jobs {
            if let Some(load) = self.give(job) {
                load.wake();
            }
        }
    }

    /// Ends instances that have had nothing to do since `since`.
    pub fn forget(&self, since: Instant) {
        for load in &*self.loads() {
            load.forget(since);
        }
    }

    fn leave(&self, load: &Arc<Load>) {
        self.loads().retain(|other| !Arc::ptr_eq(other, load));
    }

    fn loads(&self) -> MutexGuard<'_, Vec<Arc<Load>>> {
        // Whole entries come and go, whoever panicked.
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
