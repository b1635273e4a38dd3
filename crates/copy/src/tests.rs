extern crate std;

use std::vec::Vec;

use super::*;

const SIZES: [usize; 9] = [300, 511, 512, 513, 1000, 4095, 4096, 4097, 70_000];

fn sizes() -> impl Iterator<Item = usize> {
    (0..260).chain(SIZES)
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn copies_what_it_is_told_and_nothing_else() {
    for size in sizes() {
        for (from, to) in [(0, 0), (1, 0), (0, 3), (5, 7), (15, 16), (17, 1)] {
            let source = pattern(size + 64);
            let mut target = std::vec![0xaa; size + 64];
            // SAFETY: both are longer than that.
            unsafe { copy(target.as_mut_ptr().add(to), source.as_ptr().add(from), size) };
            assert_eq!(target[to..to + size], source[from..from + size], "{size}");
            let rest = target[..to].iter().chain(&target[to + size..]);
            assert!(rest.into_iter().all(|&byte| byte == 0xaa), "{size}");
        }
    }
}

#[test]
fn copies_what_overlaps() {
    for size in sizes() {
        for distance in [
            0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 200, 500,
        ] {
            for forwards in [false, true] {
                let (from, to) = if forwards {
                    (distance, 0)
                } else {
                    (0, distance)
                };
                let mut there = pattern(size + distance + 8);
                let mut expected = there.clone();
                expected.copy_within(from..from + size, to);
                let place = there.as_mut_ptr();
                // SAFETY: it is longer than that.
                unsafe { copy(place.add(to), place.add(from), size) };
                assert!(there == expected, "{size} bytes from {from} to {to}");
            }
        }
    }
}

#[test]
fn fills_what_it_is_told_and_nothing_else() {
    for size in sizes() {
        for at in [0, 1, 7, 16] {
            let mut there = pattern(size + 40);
            let mut expected = there.clone();
            expected[at..at + size].fill(0xc3);
            // SAFETY: it is longer than that.
            unsafe { fill(there.as_mut_ptr().add(at), 0xc3, size) };
            assert!(there == expected, "{size} at {at}");
        }
    }
}

#[test]
fn compares_as_bytes_without_a_sign() {
    for size in (0..200).chain([1000, 4097]) {
        let one = pattern(size);
        // SAFETY: both are as long as that.
        let compared = |other: &[u8]| unsafe { compare(one.as_ptr(), other.as_ptr(), size) };
        assert_eq!(compared(&one), 0);
        for at in (0..size).step_by(1 + size / 64) {
            for (change, rest) in [(1, 0), (0x80, 0xff), (0xff, 0x01)] {
                let mut other = one.clone();
                other[at] = other[at].wrapping_add(change);
                other[at + 1..].fill(rest);
                let expected = one.as_slice().cmp(&other) as i32;
                assert_eq!(compared(&other).signum(), expected, "{size} at {at}");
            }
        }
    }
}
