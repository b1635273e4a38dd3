//! How much memory instances may take: the limiter of their stores.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

use wasmtime::{Engine, ResourceLimiter, Store};
use wisp_capability::{Cap, FURTHER_HOST, Limits};

use crate::ledger::Ledger;
use crate::stacks::{STACK, Stacks};

/// What one element of a table takes, in bytes.
const ELEMENT: u64 = size_of::<usize>() as u64;

/// After how many more bytes the container's limit is looked at again, in case
/// it was lowered. A raised one is seen as soon as it is needed.
const LOOK_AGAIN: u64 = 4 << 20;

/// A container of version 1 without a limit has about this many bytes.
const WITHOUT_LIMIT: u64 = 1 << 62;

/// All the instances of a program can make. Components name theirs in advance,
/// so these are far above what any has.
const INSTANCES: usize = 1000;
const TABLES: usize = 1000;
const MEMORIES: usize = 100;

/// How often a growth is tried again that another process of the container has
/// come in between: as often as two are that take turns, and no longer.
const TRIES: usize = 64;

/// What all instances of this process may have, and have: together with those of
/// the container's other guests.
pub struct Budget {
    limits: Limits,
    /// The file of the container's cgroup with its memory limit.
    file: Option<File>,
    /// What it said last; `u64::MAX` is no limit.
    container: AtomicU64,
    /// Bytes of linear memories, tables and stacks, of this process and the others.
    ledger: Ledger,
    stacks: Stacks,
    /// Of this process's, what the process itself is taken to have.
    host: u64,
    /// Below this many used bytes, what the file said last is good enough.
    known_up_to: AtomicU64,
    /// The last of each thread: guests fail on the thread that they were refused on.
    refused: Mutex<HashMap<ThreadId, Refused>>,
}

/// A growth that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Bytes that there would have been.
    wanted: u64,
    /// Of those, the bytes that other guests of the container have.
    others: u64,
    /// And those that are for stacks.
    stacks: u64,
    of_instance: bool,
    cap: Cap,
    at: Instant,
}

impl Refused {
    /// Whether there may be more when other instances have ended.
    pub fn may_pass(&self) -> bool {
        !self.of_instance
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.of_instance {
            true => "an instance's memory limit",
            false => "the memory limit",
        };
        let kib = |bytes: u64| bytes.div_ceil(1024);
        write!(
            f,
            "{whose} was reached: {} KiB of linear memory{} wanted, ",
            kib(self.wanted),
            match self.stacks {
                0 => " and tables",
                _ => ", tables and stacks",
            }
        )?;
        if self.stacks > 0 {
            let stacks = kib(self.stacks);
            write!(f, "{stacks} KiB of which instances' stacks may take, ")?;
        }
        if self.others > 0 {
            let others = kib(self.others);
            write!(
                f,
                "{others} KiB of which other guests of the container have, "
            )?;
        }
        write!(f, "the limit is {}", self.cap)
    }
}

impl Budget {
    /// `file` says in its first line what the container's limit is by now, as
    /// cgroups do: bytes, or `max`. `ledger` says what its other guests have, and
    /// is told what this one has.
    pub fn new(limits: Limits, file: Option<File>, ledger: Ledger) -> Arc<Self> {
        // The limits leave room for one process.
        let host = if ledger.is_further() { FURTHER_HOST } else { 0 };
        ledger.begin(host);
        Arc::new(Self {
            container: AtomicU64::new(limits.container.unwrap_or(u64::MAX)),
            limits,
            file,
            ledger,
            stacks: Stacks::default(),
            host,
            known_up_to: AtomicU64::new(LOOK_AGAIN),
            refused: Mutex::default(),
        })
    }

    /// What a store's limiter is to be.
    pub fn limiter(self: &Arc<Self>) -> Limiter {
        Limiter {
            budget: self.clone(),
            used: 0,
            last: 0,
            has_stack: false,
        }
    }

    /// Says whose instances are to have stacks that count.
    pub fn count_stacks(&self, engine: &Engine) {
        self.stacks.count(engine);
    }

    /// Bytes of linear memories and tables of all instances of this process.
    pub fn used(&self) -> u64 {
        let beside = self.host.saturating_add(self.stacks.bytes());
        self.ledger.used().saturating_sub(beside)
    }

    /// Which limit was reached on this thread since `begun` and the last time that
    /// this was asked, if one was.
    pub fn take_refusal(&self, begun: Instant) -> Option<Refused> {
        let refused = self.refusals().remove(&thread::current().id())?;
        (refused.at >= begun).then_some(refused)
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<ThreadId, Refused>> {
        // A whole value is written at once, whoever panicked.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_sum(&self) -> Option<Cap> {
        let container = self.container.load(Relaxed);
        self.limits
            .in_sum((container < WITHOUT_LIMIT).then_some(container))
    }

    /// Asks the cgroup what its limit is now.
    fn look(&self) {
        let mut text = [0; 32];
        let Some(limit) = self
            .file
            .as_ref()
            .and_then(|file| file.read_at(&mut text, 0).ok())
            .and_then(|length| limit(&text[..length]))
        else {
            return;
        };
        self.container.store(limit, Relaxed);
    }

    /// Takes `more` bytes for an instance that has `own`; says whether it may.
    fn take(&self, own: u64, more: u64) -> bool {
        let mine = own.saturating_add(more);
        if let Some(cap) = self.limits.instance
            && mine > cap.bytes
        {
            self.refuse(mine, 0, true, cap);
            return false;
        }
        self.take_in_sum(more)
    }

    /// Takes `more` bytes, whosever they are; says whether it may.
    fn take_in_sum(&self, more: u64) -> bool {
        let mut tries = 0;
        loop {
            let others = self.ledger.others();
            let Some(used) = self.take_beside(others, more) else {
                return false;
            };
            // Another process may have come in between: whichever of the two looks
            // last sees what both have taken.
            let now = self.ledger.others();
            if now <= others {
                return true;
            }
            let all = used.saturating_add(now);
            let Some(cap) = self.in_sum().filter(|cap| all > cap.bytes) else {
                return true;
            };
            self.ledger.give_back(more);
            tries += 1;
            if tries == TRIES {
                self.refuse(all, now, false, cap);
                return false;
            }
            thread::yield_now();
        }
    }

    /// Takes `more` bytes where the other processes have `others`; answers what
    /// this one has then, if it may.
    fn take_beside(&self, others: u64, more: u64) -> Option<u64> {
        let mut used = self.ledger.used();
        loop {
            let then = used.saturating_add(more);
            let all = then.saturating_add(others);
            let exceeded = || self.in_sum().filter(|cap| all > cap.bytes);
            if all > self.known_up_to.load(Relaxed) || exceeded().is_some() {
                self.known_up_to
                    .store(all.saturating_add(LOOK_AGAIN), Relaxed);
                self.look();
            }
            if let Some(cap) = exceeded() {
                self.refuse(all, others, false, cap);
                return None;
            }
            // A guest on another thread may have come in between.
            match self.ledger.change(used, then) {
                Ok(()) => return Some(then),
                Err(now) => used = now,
            }
        }
    }

    fn refuse(&self, wanted: u64, others: u64, of_instance: bool, cap: Cap) {
        let refused = Refused {
            wanted,
            others,
            stacks: match of_instance {
                true => 0,
                false => self.stacks.bytes(),
            },
            of_instance,
            cap,
            at: Instant::now(),
        };
        self.refusals().insert(thread::current().id(), refused);
    }

    /// Takes what as many bytes of stacks lack; says whether it may.
    fn raise_stacks(&self, wanted: u64) -> bool {
        self.stacks.raise(wanted, |more| self.take_in_sum(more))
    }

    /// Of what was taken.
    fn give_back(&self, bytes: u64) {
        self.ledger.give_back(bytes);
    }
}

/// The limit in a cgroup's file; `u64::MAX` is none.
fn limit(text: &[u8]) -> Option<u64> {
    match std::str::from_utf8(text).ok()?.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// What one store's instances have. Gives it back when it is dropped.
pub struct Limiter {
    budget: Arc<Budget>,
    used: u64,
    /// The growth that was allowed last, should it fail for another reason.
    last: u64,
    /// A stack that goes with the store counts.
    has_stack: bool,
}

impl Limiter {
    /// Takes room for the stack that the store's instance computes on; says
    /// whether it may.
    pub fn take_stack(&mut self) -> bool {
        let stacks = &self.budget.stacks;
        if stacks.are_reserved() {
            return self.budget.raise_stacks(stacks.with_one_more());
        }
        if !self.has_stack {
            self.has_stack = self.budget.take_in_sum(STACK);
            if self.has_stack {
                stacks.add();
            }
        }
        self.has_stack
    }

    /// Makes a store obey the limiter that its data has.
    pub fn bind<T: 'static>(
        store: &mut Store<T>,
        of: impl Fn(&mut T) -> &mut Self + Send + Sync + 'static,
    ) {
        let hostcall = of(store.data_mut()).budget.limits.hostcall();
        store.set_hostcall_fuel(usize::try_from(hostcall).unwrap_or(usize::MAX));
        store.limiter(move |data| of(data));
    }

    fn grow(&mut self, more: u64) -> bool {
        // An instance of 0.3 can have come to more stacks than it began with.
        let budget = &self.budget;
        let allowed = budget.raise_stacks(budget.stacks.in_use()) && budget.take(self.used, more);
        self.last = if allowed { more } else { 0 };
        self.used += self.last;
        allowed
    }

    fn undo(&mut self) {
        self.budget.give_back(self.last);
        self.used -= self.last;
        self.last = 0;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Beyond its own maximum nothing is taken, and no limit of ours met.
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.last = 0;
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.last = 0;
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        Ok(self.grow(more.saturating_mul(ELEMENT)))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.give_back(self.used);
        if self.has_stack {
            self.budget.give_back(STACK);
            self.budget.stacks.remove();
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
