//! What one thread keeps.

use std::ptr;

use crate::class::{CLASSES, Class};

/// The most pieces of one class.
const PIECES: usize = 32;

/// The most bytes of one class: fewer pieces of those that are large, but [`FEW`].
const BYTES: usize = 16 << 10;

/// As many at least: parts of bodies are large, and several are under way. musl has
/// the kernel map each of them anew.
const FEW: usize = 2;

/// Pieces that were given back, of each class those that came last.
pub struct Kept([Pieces; CLASSES]);

#[derive(Clone, Copy)]
struct Pieces {
    count: usize,
    pieces: [*mut u8; PIECES],
}

impl Default for Kept {
    fn default() -> Self {
        let none = Pieces {
            count: 0,
            pieces: [ptr::null_mut(); PIECES],
        };
        Self([none; CLASSES])
    }
}

impl Kept {
    /// The piece of a class that came last.
    #[inline]
    pub fn take(&mut self, class: Class) -> Option<*mut u8> {
        let Pieces { count, pieces } = &mut self.0[class.number];
        *count = count.checked_sub(1)?;
        Some(pieces[*count])
    }

    /// Keeps a piece, if there is room for it.
    #[inline]
    pub fn put(&mut self, class: Class, piece: *mut u8) -> Option<()> {
        let most = (BYTES / class.size()).clamp(FEW, PIECES);
        let Pieces { count, pieces } = &mut self.0[class.number];
        if *count >= most {
            return None;
        }
        pieces[*count] = piece;
        *count += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::Layout;

    #[test]
    fn what_came_last_goes_first_and_what_is_too_much_is_not_kept() {
        let class = |size| Class::of(Layout::from_size_align(size, 1).expect("layout"));
        let mut kept = Kept::default();
        let mut all = 0;
        for size in [1, 512, 513, 4096, 16 << 10, 128 << 10] {
            let class = class(size).expect("class");
            let mut count = 0;
            while kept
                .put(class, ptr::without_provenance_mut(count + 1))
                .is_some()
            {
                count += 1;
            }
            assert!((FEW..=PIECES).contains(&count));
            assert!(count == FEW || count * class.size() <= BYTES);
            for number in (1..=count).rev() {
                assert_eq!(kept.take(class).map(|piece| piece.addr()), Some(number));
            }
            assert_eq!(kept.take(class), None);
            all += count;
        }
        assert_eq!(all, 32 + 32 + 25 + 4 + 2 + 2);
    }
}
