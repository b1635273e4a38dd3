use super::*;
use std::collections::HashMap;
use std::thread;

#[global_allocator]
static HEAP: Heap = Heap;

/// Sizes from 1 to 300,000, the small ones more often; always the same ones.
fn sizes(seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let random = (state >> 33) as usize;
        1 + random % [40, 300, 2_000, 70_000, 300_000][(state >> 29) as usize % 5]
    })
}

/// Has a thousand pieces come, grow, shrink and go, and looks after what is in them.
fn churn(seed: u64) {
    let mut pieces: HashMap<usize, Vec<u8>> = HashMap::new();
    for (round, size) in sizes(seed).take(20_000).enumerate() {
        let place = round % 1_000;
        let fill = (round % 251) as u8;
        match pieces.remove(&place) {
            Some(mut piece) if round % 3 == 0 => {
                let (first, both) = (piece[0], piece.len().min(size));
                piece.resize(size, first);
                piece.shrink_to_fit();
                assert!(piece[..both].iter().all(|&byte| byte == first));
                pieces.insert(place, piece);
            }
            _ if round % 5 == 0 => {
                let zeroed = vec![0; size];
                assert!(zeroed.iter().all(|&byte| byte == 0));
                pieces.insert(place, zeroed);
            }
            _ => {
                pieces.insert(place, vec![fill; size]);
            }
        }
    }
    for piece in pieces.values() {
        assert!(piece.iter().all(|&byte| byte == piece[0]));
    }
}

#[test]
fn pieces_hold_what_is_put_into_them_with_and_without_keeping() {
    thread::scope(|scope| {
        for seed in 1..5 {
            scope.spawn(move || {
                if seed % 2 == 0 {
                    keep();
                    keep();
                }
                churn(seed);
            });
        }
    });
}

#[test]
fn a_piece_that_was_given_back_is_the_next_of_its_class() {
    let again = |size: usize, then: usize| {
        let first = vec![1_u8; size];
        let place = first.as_ptr().addr();
        drop(first);
        let second = Vec::<u8>::with_capacity(then);
        second.as_ptr().addr() == place
    };
    thread::spawn(move || {
        keep();
        assert!(again(1000, 1020));
        assert!(again(24, 32));
        assert!(!again(24, 33));
    })
    .join()
    .expect("thread");
}

#[test]
fn pieces_of_one_thread_are_given_back_on_another() {
    let (give, take) = std::sync::mpsc::sync_channel::<Vec<u8>>(100);
    thread::scope(|scope| {
        scope.spawn(move || {
            keep();
            for size in sizes(7).take(20_000) {
                give.send(vec![7; size]).expect("send");
            }
        });
        scope.spawn(move || {
            keep();
            for piece in take {
                assert!(piece.iter().all(|&byte| byte == 7));
            }
        });
    });
}

#[test]
fn what_needs_more_alignment_has_it() {
    #[repr(align(64))]
    struct Wide([u8; 64]);
    keep();
    for _ in 0..100 {
        let wide = Box::new(Wide([3; 64]));
        assert!(ptr::from_ref(&*wide).addr().is_multiple_of(64));
        assert_eq!(wide.0[63], 3);
        let sixteen = Box::new(1_u128);
        assert!(ptr::from_ref(&*sixteen).addr().is_multiple_of(16));
    }
}
