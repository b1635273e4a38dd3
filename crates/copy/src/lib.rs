//! Copies, fills and compares memory, in place of the C library's functions where
//! those are slow: musl's on x86_64, which released programs have.
//!
//! musl copies with `rep movsq` and compares byte by byte. What guests copy comes
//! here too (`memory.copy`), mostly a few bytes at a time: JSON took a server half
//! of its time in there. These take the 16 bytes at once that every x86_64 has.
//!
//! A program has them by `use wisp_copy as _;`.

// The compiler would make calls of these very functions out of what they do.
#![no_builtins]
#![no_std]
#![cfg(target_arch = "x86_64")]

#[cfg(target_env = "musl")]
mod names;
#[cfg(test)]
mod tests;

use core::arch::asm;
use core::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_storeu_si128,
};

/// Bytes of a vector.
const V: usize = 16;
/// What a loop does in one round.
const ROUND: usize = 4 * V;
/// From here on the processor's own way is the faster one.
const LONG: usize = 2048;

#[inline(always)]
unsafe fn load(from: *const u8, at: usize) -> __m128i {
    // SAFETY: the caller's promise: 16 bytes are there.
    unsafe { _mm_loadu_si128(from.add(at).cast()) }
}

#[inline(always)]
unsafe fn store(to: *mut u8, at: usize, value: __m128i) {
    // SAFETY: the caller's promise: 16 bytes are there.
    unsafe { _mm_storeu_si128(to.add(at).cast(), value) };
}

/// `memmove(3)`: copies `count` bytes, which may overlap.
///
/// # Safety
/// As many can be read at `from`, and written at `to`.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: nothing is touched outside of the first `count` bytes of both. In each
    // case all is loaded before the first is stored, or what a loop has still to
    // load is ahead of what it has stored.
    unsafe {
        match count {
            0 => {}
            1..4 => {
                let (first, middle) = (*from, *from.add(count / 2));
                let last = *from.add(count - 1);
                *to = first;
                *to.add(count / 2) = middle;
                *to.add(count - 1) = last;
            }
            4..8 => {
                let first = from.cast::<u32>().read_unaligned();
                let last = from.add(count - 4).cast::<u32>().read_unaligned();
                to.cast::<u32>().write_unaligned(first);
                to.add(count - 4).cast::<u32>().write_unaligned(last);
            }
            8..16 => {
                let first = from.cast::<u64>().read_unaligned();
                let last = from.add(count - 8).cast::<u64>().read_unaligned();
                to.cast::<u64>().write_unaligned(first);
                to.add(count - 8).cast::<u64>().write_unaligned(last);
            }
            16..=32 => {
                let (first, last) = (load(from, 0), load(from, count - V));
                store(to, 0, first);
                store(to, count - V, last);
            }
            33..=64 => {
                let begin = [load(from, 0), load(from, V)];
                let end = [load(from, count - 2 * V), load(from, count - V)];
                store(to, 0, begin[0]);
                store(to, V, begin[1]);
                store(to, count - 2 * V, end[0]);
                store(to, count - V, end[1]);
            }
            // Where they overlap it goes byte by byte.
            LONG.. if (to as usize).abs_diff(from as usize) >= count => {
                asm!(
                    "rep movsb",
                    inout("rcx") count => _,
                    inout("rdi") to => _,
                    inout("rsi") from => _,
                    options(nostack, preserves_flags),
                );
            }
            _ if (to as usize).wrapping_sub(from as usize) >= count => forwards(to, from, count),
            _ => backwards(to, from, count),
        }
    }
}

#[inline(always)]
unsafe fn round(from: *const u8, at: usize) -> [__m128i; 4] {
    // SAFETY: the caller's promise: 64 bytes are there.
    unsafe {
        [
            load(from, at),
            load(from, at + V),
            load(from, at + 2 * V),
            load(from, at + 3 * V),
        ]
    }
}

#[inline(always)]
unsafe fn put(to: *mut u8, at: usize, values: [__m128i; 4]) {
    // SAFETY: the caller's promise: 64 bytes are there.
    unsafe {
        store(to, at, values[0]);
        store(to, at + V, values[1]);
        store(to, at + 2 * V, values[2]);
        store(to, at + 3 * V, values[3]);
    }
}

/// More than 64 bytes, of which those at `to` do not begin within those at `from`.
unsafe fn forwards(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: as `copy`. The last bytes are loaded before the loop may write to
    // where they are.
    unsafe {
        let last = round(from, count - ROUND);
        let mut at = 0;
        while at < count - ROUND {
            let values = round(from, at);
            put(to, at, values);
            at += ROUND;
        }
        put(to, count - ROUND, last);
    }
}

/// The same where they do.
unsafe fn backwards(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: as `forwards`, from the other end.
    unsafe {
        let first = round(from, 0);
        let mut at = count;
        while at > ROUND {
            at -= ROUND;
            let values = round(from, at);
            put(to, at, values);
        }
        put(to, 0, first);
    }
}

/// `memset(3)`: writes `count` bytes.
///
/// # Safety
/// As many can be written at `to`.
#[inline(always)]
pub unsafe fn fill(to: *mut u8, byte: u8, count: usize) {
    // SAFETY: nothing is touched outside of the first `count` bytes.
    unsafe {
        if count < V {
            let eight = u64::from(byte) * 0x0101_0101_0101_0101;
            if count >= 8 {
                to.cast::<u64>().write_unaligned(eight);
                to.add(count - 8).cast::<u64>().write_unaligned(eight);
            } else if count >= 4 {
                to.cast::<u32>().write_unaligned(eight as u32);
                to.add(count - 4)
                    .cast::<u32>()
                    .write_unaligned(eight as u32);
            } else if count > 0 {
                *to = byte;
                *to.add(count / 2) = byte;
                *to.add(count - 1) = byte;
            }
            return;
        }
        if count >= LONG {
            asm!(
                "rep stosb",
                inout("rcx") count => _,
                inout("rdi") to => _,
                in("al") byte,
                options(nostack, preserves_flags),
            );
            return;
        }
        let vector = _mm_set1_epi8(byte.cast_signed());
        let mut at = 0;
        while at + ROUND <= count {
            put(to, at, [vector; 4]);
            at += ROUND;
        }
        while at + V <= count {
            store(to, at, vector);
            at += V;
        }
        store(to, count - V, vector);
    }
}

/// `memcmp(3)`: of the first byte in which they differ, how.
///
/// # Safety
/// `count` bytes can be read at both.
#[inline(always)]
pub unsafe fn compare(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: nothing is read outside of the first `count` bytes of both.
    unsafe {
        let mut at = 0;
        while at + V <= count {
            let equal = _mm_cmpeq_epi8(load(one, at), load(other, at));
            let differ = _mm_movemask_epi8(equal) ^ 0xffff;
            if differ != 0 {
                let at = at + differ.trailing_zeros() as usize;
                return i32::from(*one.add(at)) - i32::from(*other.add(at));
            }
            at += V;
        }
        if at + 8 <= count {
            let one = one.add(at).cast::<u64>().read_unaligned();
            let other = other.add(at).cast::<u64>().read_unaligned();
            if one != other {
                return match one.swap_bytes() < other.swap_bytes() {
                    true => -1,
                    false => 1,
                };
            }
            at += 8;
        }
        while at < count {
            let difference = i32::from(*one.add(at)) - i32::from(*other.add(at));
            if difference != 0 {
                return difference;
            }
            at += 1;
        }
        0
    }
}
