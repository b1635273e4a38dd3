//! What an instance has to do.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::course::Course;
use super::{Bounds, Job, Over};
use crate::http::spare::Spared;

/// How often to look after a guest that has been at work for as long as it may.
const LOOK: Duration = Duration::from_secs(1);

/// The requests of one instance: those that wait for it, and those that it works
/// on.
pub struct Load {
    /// What works them off.
    pub course: Course,
    bounds: Bounds,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<Box<Job>>,
    open: HashMap<u32, Over>,
    /// How many requests it has been given, those that wait included.
    given: u32,
    /// When the last one began.
    begun: Instant,
    accepts: Accepts,
    rest: Rest,
    waker: Option<Waker>,
}

/// Whether it gets further requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Yes,
    /// Not while its guest computes: others would wait for that.
    NotNow,
    /// Not any more.
    Never,
    /// Nor does it wait for what its guest does besides: a request took too long.
    Failed,
}

/// Whether the guest has anything to do.
enum Rest {
    No,
    Since { start: Instant, _place: Spared },
}

/// What comes next for an instance.
pub enum Next {
    Request(Box<Job>, u32),
    Wait,
    /// Nothing, ever.
    End,
}

impl Load {
    pub fn new(bounds: Bounds, first: Box<Job>) -> Self {
        Self {
            course: Course::default(),
            bounds,
            state: Mutex::new(State {
                waiting: VecDeque::from([first]),
                open: HashMap::new(),
                given: 1,
                begun: Instant::now(),
                accepts: if bounds.reuse > 1 {
                    Accepts::Yes
                } else {
                    Accepts::Never
                },
                rest: Rest::No,
                waker: None,
            }),
        }
    }

    /// Takes a request, if there is room for it. The instance does not learn of it
    /// by this.
    ///
    /// # Errors
    /// The request, if there is none.
    pub fn offer(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        let mut state = self.state();
        let at_once = state.waiting.len() + state.open.len();
        if state.accepts != Accepts::Yes || at_once >= self.bounds.concurrency as usize {
            return Err(job);
        }
        state.given += 1;
        if state.given >= self.bounds.reuse {
            state.accepts = Accepts::Never;
        }
        state.waiting.push_back(job);
        Ok(())
    }

    /// Has the instance go on with what it was offered: now, or in its own turn.
    pub fn go_on(&self) {
        if !self.course.go_on() {
            self.wake();
        }
    }

    /// Has the instance look at what it was offered, in its own turn.
    pub fn wake(&self) {
        self.state().wake();
    }

    /// What the instance does next; who asks is woken when that changes.
    pub fn next(&self, context: &mut Context<'_>) -> Next {
        let mut state = self.state();
        state.back();
        if let Some(job) = state.waiting.pop_front() {
            state.begun = Instant::now();
            state.rest = Rest::No;
            let number = state.given - count(&state.waiting);
            return Next::Request(job, number);
        }
        if state.accepts == Accepts::Failed && state.open.is_empty() {
            return Next::End;
        }
        state.waker = Some(context.waker().clone());
        Next::Wait
    }

    /// Notes where to tell the end of request `number`.
    pub fn begin(&self, number: u32, over: Over) {
        self.state().open.insert(number, over);
    }

    /// Tells that request `number` is over.
    pub fn end(&self, number: u32) {
        let over = self.state().open.remove(&number);
        if let Some(over) = over {
            // Nobody may want to know any more.
            let _ = over.send(Ok(()));
        }
    }

    /// Is ready when nobody waits for request `number` any more: then the
    /// instance gets no others.
    pub fn abandoned(&self, number: u32, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if let Some(over) = state.open.get_mut(&number)
            && over.poll_closed(context).is_pending()
        {
            return Poll::Pending;
        }
        state.open.remove(&number);
        state.fail();
        Poll::Ready(())
    }

    /// The guest computes, so requests cannot be looked after: gives back those
    /// that wait, and says whether anybody still waits for the others.
    pub fn computes(&self) -> (VecDeque<Box<Job>>, bool) {
        let mut state = self.state();
        if state.accepts == Accepts::Yes {
            state.accepts = Accepts::NotNow;
        }
        let before = state.open.len();
        state.open.retain(|_, over| !over.is_closed());
        if state.open.len() < before {
            state.fail();
        }
        let waiting = mem::take(&mut state.waiting);
        state.given -= count(&waiting);
        let wanted = state.accepts != Accepts::Failed || !state.open.is_empty();
        (waiting, wanted)
    }

    /// Notes that neither a request nor the guest wants anything. `place` is
    /// where it may wait for more; it ends if it has none or gets no more.
    pub fn rest(&self, place: impl FnOnce() -> Option<Spared>) -> bool {
        let mut state = self.state();
        if !matches!(state.accepts, Accepts::Yes | Accepts::NotNow) {
            return false;
        }
        if matches!(state.rest, Rest::Since { .. }) {
            return true;
        }
        let Some(place) = place() else {
            state.accepts = Accepts::Never;
            return false;
        };
        state.rest = Rest::Since {
            start: Instant::now(),
            _place: place,
        };
        true
    }

    /// Ends it if it has rested since `since`.
    pub fn forget(&self, since: Instant) {
        let mut state = self.state();
        let old = matches!(state.rest, Rest::Since { start, .. } if start < since);
        if old && state.waiting.is_empty() {
            state.accepts = Accepts::Never;
            state.wake();
        }
    }

    /// Whether a request took too long.
    pub fn has_failed(&self) -> bool {
        self.state().accepts == Accepts::Failed
    }

    /// For how long the guest goes on after its last request, if that is so.
    pub fn lingers(&self) -> Option<Duration> {
        let state = self.state();
        let lingers = matches!(state.rest, Rest::No) && state.open.is_empty();
        lingers.then(|| state.begun.elapsed())
    }

    /// When the last request began.
    pub fn begun(&self) -> Instant {
        self.state().begun
    }

    /// When to ask again whether the guest goes on for longer than `limit`.
    pub fn look_again(&self, limit: Duration) -> Instant {
        let state = self.state();
        let now = Instant::now();
        // What begins from now on has that long.
        let patience = match state.rest {
            Rest::No => limit.min(LOOK),
            Rest::Since { .. } => limit,
        };
        (state.begun + limit).max(now + patience)
    }

    /// Accepts nothing more and gives what is left: requests that wait, and where
    /// the ends of others are told.
    pub fn close(&self) -> (VecDeque<Box<Job>>, Vec<Over>) {
        let mut state = self.state();
        state.accepts = Accepts::Failed;
        state.rest = Rest::No;
        let open = mem::take(&mut state.open);
        (mem::take(&mut state.waiting), open.into_values().collect())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as that can wait were given before, as numbers of this kind.
fn count(waiting: &VecDeque<Box<Job>>) -> u32 {
    u32::try_from(waiting.len()).unwrap_or(u32::MAX)
}

impl State {
    /// The guest has come back.
    fn back(&mut self) {
        if self.accepts == Accepts::NotNow {
            self.accepts = Accepts::Yes;
        }
    }

    fn fail(&mut self) {
        self.accepts = Accepts::Failed;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
