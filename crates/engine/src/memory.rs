//! How much memory instances may take: the limiter of their stores.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use wasmtime::{ResourceLimiter, Store};
use wisp_capability::{Cap, Limits};

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

/// What all instances of this process may have, and have.
pub struct Budget {
    limits: Limits,
    /// The file of the container's cgroup with its memory limit.
    file: Option<File>,
    /// What it said last; `u64::MAX` is no limit.
    container: AtomicU64,
    /// Bytes of linear memories and tables.
    used: AtomicU64,
    /// Below this many used bytes, what the file said last is good enough.
    known_up_to: AtomicU64,
    refused: Mutex<Option<Refused>>,
}

/// A growth that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Bytes that there would have been.
    wanted: u64,
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
        write!(
            f,
            "{whose} was reached: {} KiB of linear memory and tables wanted, the limit is {}",
            self.wanted.div_ceil(1024),
            self.cap
        )
    }
}

impl Budget {
    /// `file` says in its first line what the container's limit is by now, as
    /// cgroups do: bytes, or `max`.
    pub fn new(limits: Limits, file: Option<File>) -> Arc<Self> {
        Arc::new(Self {
            container: AtomicU64::new(limits.container.unwrap_or(u64::MAX)),
            limits,
            file,
            used: AtomicU64::new(0),
            known_up_to: AtomicU64::new(LOOK_AGAIN),
            refused: Mutex::new(None),
        })
    }

    /// What a store's limiter is to be.
    pub fn limiter(self: &Arc<Self>) -> Limiter {
        Limiter {
            budget: self.clone(),
            used: 0,
            last: 0,
        }
    }

    /// Bytes of linear memories and tables of all instances.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Which limit was reached since `begun` and the last time that this was
    /// asked, if one was.
    pub fn take_refusal(&self, begun: Instant) -> Option<Refused> {
        self.refusal().take().filter(|refused| refused.at >= begun)
    }

    fn refusal(&self) -> std::sync::MutexGuard<'_, Option<Refused>> {
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
            *self.refusal() = Some(Refused {
                wanted: mine,
                of_instance: true,
                cap,
                at: Instant::now(),
            });
            return false;
        }
        let mut used = self.used.load(Relaxed);
        loop {
            let all = used.saturating_add(more);
            let exceeded = || self.in_sum().filter(|cap| all > cap.bytes);
            if all > self.known_up_to.load(Relaxed) || exceeded().is_some() {
                self.known_up_to
                    .store(all.saturating_add(LOOK_AGAIN), Relaxed);
                self.look();
            }
            if let Some(cap) = exceeded() {
                *self.refusal() = Some(Refused {
                    wanted: all,
                    of_instance: false,
                    cap,
                    at: Instant::now(),
                });
                return false;
            }
            // A guest on another thread may have come in between.
            match (self.used).compare_exchange_weak(used, all, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }

    /// Of what was taken.
    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
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
}

impl Limiter {
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
        let allowed = self.budget.take(self.used, more);
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
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use wisp_capability::Source;

    use super::*;

    const MIB: usize = 1 << 20;

    fn budget(container: Option<u64>, instance: Option<u64>, file: Option<File>) -> Arc<Budget> {
        let limits = Limits {
            container,
            memory: None,
            instance: instance.map(|bytes| Cap {
                bytes,
                by: Source::Annotation("x"),
            }),
        };
        Budget::new(limits, file)
    }

    fn file(text: &str) -> File {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(text.as_bytes()).expect("write");
        file
    }

    fn grows(limiter: &mut Limiter, from: usize, to: usize) -> bool {
        limiter
            .memory_growing(from * MIB, to * MIB, None)
            .expect("an answer")
    }

    #[test]
    fn instances_share_what_the_container_leaves_and_give_it_back() {
        let budget = budget(Some(32 << 20), None, None);
        let begun = Instant::now();
        let (mut one, mut two) = (budget.limiter(), budget.limiter());
        assert!(grows(&mut one, 0, 20));
        assert!(!grows(&mut two, 0, 7));
        let refused = budget.take_refusal(begun).expect("refused");
        assert!(refused.may_pass());
        let told = refused.to_string();
        assert!(told.contains("26 MiB") && told.contains("32 MiB"), "{told}");
        assert_eq!(budget.take_refusal(begun), None);
        // One of an earlier time has nothing to do with what failed now.
        assert!(!grows(&mut two, 0, 7));
        let later = Instant::now() + Duration::from_secs(1);
        assert_eq!(budget.take_refusal(later), None);
        assert!(grows(&mut two, 0, 6));
        drop(one);
        assert!(grows(&mut two, 6, 26));
        assert!(!grows(&mut two, 26, 27));
    }

    #[test]
    fn one_instance_has_a_limit_of_its_own() {
        let budget = budget(None, Some(2 << 20), None);
        let begun = Instant::now();
        let mut limiter = budget.limiter();
        assert!(grows(&mut limiter, 0, 1));
        // A second memory of the same instance.
        assert!(grows(&mut limiter, 0, 1));
        assert!(!grows(&mut limiter, 1, 2));
        let refused = budget.take_refusal(begun).expect("refused");
        assert!(!refused.may_pass());
        let told = refused.to_string();
        assert!(told.starts_with("an instance's"), "{told}");
        assert!(grows(&mut budget.limiter(), 0, 2));
    }

    #[test]
    fn tables_count_and_a_growth_that_fails_does_not() {
        let budget = budget(Some(32 << 20), None, None);
        let mut limiter = budget.limiter();
        let elements = 26 * MIB / size_of::<usize>();
        assert!(limiter.table_growing(0, elements, None).expect("an answer"));
        assert!(!grows(&mut limiter, 0, 1));
        limiter.last = limiter.used;
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no"))
            .expect("noted");
        assert!(grows(&mut limiter, 0, 26));
        assert!(!limiter.table_growing(0, usize::MAX, None).expect("answer"));
        drop(limiter);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn a_memorys_own_maximum_is_nobodys_limit() {
        let budget = budget(Some(32 << 20), None, None);
        let begun = Instant::now();
        let mut limiter = budget.limiter();
        let grown = limiter.memory_growing(0, 2 * MIB, Some(MIB));
        assert!(!grown.expect("an answer"));
        assert_eq!(budget.take_refusal(begun), None);
    }

    #[test]
    fn a_limit_that_changes_while_the_guest_runs_is_seen() {
        let raised = budget(Some(32 << 20), None, Some(file("134217728\n")));
        assert!(grows(&mut raised.limiter(), 0, 100));
        let none = budget(Some(32 << 20), None, Some(file("max\n")));
        assert!(grows(&mut none.limiter(), 0, 1000));
        // What version 1 has without a limit.
        let none = budget(Some(32 << 20), None, Some(file("9223372036854771712\n")));
        assert!(grows(&mut none.limiter(), 0, 1000));
        let lowered = budget(None, None, Some(file("33554432\n")));
        assert!(!grows(&mut lowered.limiter(), 0, 100));
        let nonsense = budget(Some(32 << 20), None, Some(file("")));
        assert!(!grows(&mut nonsense.limiter(), 0, 100));
    }
}
