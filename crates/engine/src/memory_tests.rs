use std::io::Write;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use wisp_capability::Source;

use super::*;
use crate::ledger::LedgerFile;

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
    Budget::new(limits, file, Ledger::own())
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
fn who_is_refused_is_told_whoever_else_is() {
    let budget = budget(Some(32 << 20), None, None);
    let begun = Instant::now();
    let refused = || {
        assert!(!grows(&mut budget.limiter(), 0, 27));
    };
    std::thread::scope(|scope| {
        refused();
        let other = scope.spawn(|| {
            refused();
            budget.take_refusal(begun).is_some()
        });
        assert!(other.join().expect("joined"));
        assert!(budget.take_refusal(begun).is_some());
    });
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

/// Two processes of a container, by their places.
fn two(container: u64) -> [Arc<Budget>; 2] {
    let file = LedgerFile::create().expect("file");
    [0, 1].map(|place| {
        let limits = Limits {
            container: Some(container),
            ..Limits::default()
        };
        Budget::new(limits, None, Ledger::join(&file, place).expect("joined"))
    })
}

#[test]
fn processes_share_it_too_and_a_further_one_takes_room_itself() {
    let [first, further] = two(32 << 20);
    let begun = Instant::now();
    let host = FURTHER_HOST as usize / MIB;
    assert_eq!((first.used(), further.used()), (0, 0));
    let (mut one, mut two) = (first.limiter(), further.limiter());
    assert!(grows(&mut one, 0, 20));
    assert!(!grows(&mut two, 0, 7 - host));
    let told = further.take_refusal(begun).expect("refused").to_string();
    let expected = format!("{} KiB of linear", 27 << 10);
    assert!(told.contains(&expected), "{told}");
    assert!(told.contains("20480 KiB of which other guests"), "{told}");
    assert!(grows(&mut two, 0, 6 - host));
    assert_eq!(further.used(), (6 - host as u64) << 20);
    assert!(!grows(&mut one, 20, 21));
    drop(two);
    assert!(grows(&mut one, 20, 26 - host));
}

#[test]
fn however_they_race_all_never_have_more_than_there_is() {
    let budgets = two(32 << 20);
    let left = 26 * (1 << 20) - FURTHER_HOST;
    let page = 64 * 1024;
    // What they were told that they have.
    let held = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for budget in budgets.iter().chain(&budgets) {
            let held = &held;
            scope.spawn(move || {
                for round in 0..20_000 {
                    if !budget.take(0, page) {
                        continue;
                    }
                    let all = held.fetch_add(page, SeqCst) + page;
                    assert!(all <= left, "{all} of {left}");
                    if round % 2 == 0 {
                        held.fetch_sub(page, SeqCst);
                        budget.give_back(page);
                    }
                }
            });
        }
    });
    let both: u64 = budgets.iter().map(|budget| budget.used()).sum();
    assert_eq!(both, held.into_inner());
    assert!(both + 8 * page > left, "{both} of {left}");
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
    assert_eq!(budget.used(), 0);
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

/// As many as are in use, and none before.
struct InUse(Arc<AtomicU64>);

impl crate::stacks::Pool for InUse {
    fn in_use(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn used_before(&self) -> u64 {
        0
    }
}

#[test]
fn stacks_of_a_pool_are_in_the_sum_for_ever() {
    let budget = budget(Some(32 << 20), Some(1 << 20), None);
    let in_use = Arc::new(AtomicU64::new(0));
    budget.stacks.count_in(Box::new(InUse(in_use.clone())));
    let begun = Instant::now();
    let mut held = Vec::new();
    loop {
        let mut limiter = budget.limiter();
        if !limiter.take_stack() || !grows(&mut limiter, 0, 1) {
            break;
        }
        in_use.fetch_add(1, SeqCst);
        held.push(limiter);
    }
    // The first one's is in what the process has; an instance's own bound is not
    // about stacks.
    let each = (1 << 20) + STACK;
    let count = held.len() as u64;
    assert_eq!(count, ((26 << 20) + STACK) / each);
    let refused = budget.take_refusal(begun).expect("refused");
    assert!(refused.may_pass());
    let told = refused.to_string();
    let stacks = format!(
        "{} KiB of which instances' stacks",
        ((count - 1) * STACK) >> 10
    );
    assert!(told.contains(&stacks), "{told}");
    assert_eq!(budget.used(), count << 20);
    // What they have written is still there.
    held.clear();
    in_use.store(0, SeqCst);
    assert_eq!(budget.used(), 0);
    let left = (26 << 20) - (count - 1) * STACK;
    assert!(!budget.take_in_sum(left + 1));
    assert!(budget.take_in_sum(left));
}

#[test]
fn stacks_that_an_instance_comes_to_later_are_seen_when_it_grows() {
    let budget = budget(Some(32 << 20), None, None);
    let in_use = Arc::new(AtomicU64::new(1));
    budget.stacks.count_in(Box::new(InUse(in_use.clone())));
    let mut limiter = budget.limiter();
    assert!(grows(&mut limiter, 0, 1));
    assert_eq!(budget.stacks.bytes(), 0);
    in_use.store(3, SeqCst);
    assert!(grows(&mut limiter, 1, 2));
    assert_eq!(budget.stacks.bytes(), 2 * STACK);
    in_use.store(1000, SeqCst);
    assert!(!grows(&mut limiter, 2, 3));
    drop(limiter);
    assert_eq!((budget.used(), budget.stacks.bytes()), (0, 2 * STACK));
}

#[test]
fn a_stack_that_is_not_reserved_goes_with_its_instance() {
    let budget = budget(Some(6 << 20), None, None);
    // 6 MiB leave a bit more than a half to two.
    let (mut one, mut two) = (budget.limiter(), budget.limiter());
    assert!(one.take_stack() && one.take_stack());
    assert!(two.take_stack());
    assert_eq!(budget.used(), 0);
    assert!(!budget.limiter().take_stack());
    drop(one);
    assert!(budget.limiter().take_stack());
    drop(two);
    assert_eq!((budget.ledger.used(), budget.stacks.bytes()), (0, 0));
}
