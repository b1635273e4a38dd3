//! Instances of the component: used, and where asked for used again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::Request;
use wasmtime_wasi_http::WasiBody;
use wisp_capability::HttpServer;

use super::answer::Answer;
use super::instance::{Instance, Maker};
use super::metrics::Metrics;
use super::pool;
use super::request::Held;
use super::shared::Shared;
use super::spare::{Spare, Spared};
use super::trace::{Scope, Step};

/// Gives each request an instance and keeps those that may be used again.
pub struct Instances {
    pub maker: Arc<Maker>,
    way: Way,
}

/// How requests come to instances.
enum Way {
    /// Each has an instance to itself.
    Alone {
        /// How many requests one instance answers.
        reuse: u32,
        spare: Arc<Spare>,
        /// The one used last is used first: its memory is warm, and those
        /// beyond what is needed grow old.
        idle: Mutex<Vec<Idle>>,
    },
    /// An instance works on several at once.
    Together(Arc<Shared>),
}

struct Idle {
    instance: Instance,
    /// How many requests it has been given.
    served: u32,
    since: Instant,
    _spared: Spared,
}

impl Instances {
    pub fn new(maker: Maker, settings: &HttpServer) -> Self {
        let maker = Arc::new(maker);
        let spare = Arc::new(Spare::new(pool::spare(settings)));
        let way = if settings.concurrency > 1 && maker.is_concurrent() {
            Way::Together(Shared::new(maker.clone(), settings, spare))
        } else {
            Way::alone(settings.reuse, spare)
        };
        Self { maker, way }
    }

    /// The same for another thread, with instances of its own to use again.
    pub fn beside(&self) -> Self {
        Self {
            maker: self.maker.clone(),
            way: match &self.way {
                Way::Alone { reuse, spare, .. } => Way::alone(*reuse, spare.clone()),
                Way::Together(shared) => Way::Together(shared.beside()),
            },
        }
    }

    /// Has an instance handle `request` to its end. `held` is kept for as long as
    /// a guest works for it, which may be longer than this takes where others
    /// share the instance; dropping what this returns ends a guest that has no
    /// other request, wherever it is.
    ///
    /// # Errors
    /// Whatever ends the guest.
    pub async fn serve(
        &self,
        mut request: Request<WasiBody>,
        answer: &Arc<Answer>,
        held: Held,
    ) -> wasmtime::Result<()> {
        let (reuse, spare, idle) = match &self.way {
            Way::Together(shared) => return shared.serve(request, answer, held).await,
            Way::Alone { reuse, spare, idle } => (*reuse, spare, idle),
        };
        let scope: Option<Arc<Scope>> = request.extensions_mut().remove();
        let metrics = &self.maker.metrics;
        let failing = Failing(metrics);
        let known = lock(idle).pop();
        let (mut instance, served) = match known {
            Some(idle) => {
                metrics.instances_reused.add(1);
                (idle.instance, idle.served)
            }
            None => {
                let step = Step::begin(scope.as_ref(), "instantiate");
                let made = self.maker.make().await;
                step.end(&made);
                (made?, 0)
            }
        };
        let step = Step::begin(scope.as_ref(), "handle");
        if let Some(scope) = &scope {
            instance.store.data_mut().calls().enter(scope.clone());
        }
        let handled = instance.handle(request, answer).await;
        step.end(&handled);
        handled?;
        if let Some(scope) = &scope {
            instance.store.data_mut().calls().leave(scope);
        }
        // Neither failed nor was it dropped in the middle.
        std::mem::forget(failing);
        let served = served + 1;
        if served < reuse
            && let Some(spared) = spare.take()
        {
            lock(idle).push(Idle {
                instance,
                served,
                since: Instant::now(),
                _spared: spared,
            });
        } else {
            drop(instance);
        }
        // Whoever has the turn next may need the place in the pool.
        drop(held);
        Ok(())
    }

    /// Ends what has not been used since `since`.
    pub fn forget(&self, since: Instant) {
        match &self.way {
            Way::Alone { idle, .. } => {
                let mut idle = lock(idle);
                let kept = idle.partition_point(|idle| idle.since < since);
                // Those used last are at the end.
                let old: Vec<_> = idle.drain(..kept).collect();
                drop(idle);
                drop(old);
            }
            Way::Together(shared) => shared.forget(since),
        }
    }

    /// Whether any instance is ever kept.
    pub fn keeps(&self) -> bool {
        match &self.way {
            Way::Alone { reuse, .. } => *reuse > 1,
            Way::Together(_) => true,
        }
    }
}

impl Way {
    fn alone(reuse: u32, spare: Arc<Spare>) -> Self {
        Self::Alone {
            reuse,
            spare,
            idle: Mutex::default(),
        }
    }
}

/// Counts an instance as failed when it is dropped.
struct Failing<'a>(&'a Metrics);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.instances_failed.add(1);
    }
}

fn lock(idle: &Mutex<Vec<Idle>>) -> MutexGuard<'_, Vec<Idle>> {
    // Whole instances come and go, whoever panicked.
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
