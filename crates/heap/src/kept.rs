//! What one thread keeps.

use std::ptr;

use crate::class::{CLASSES, Class};

/// The most pieces of one class.
const PIECES: usize = 32;

/// The largest piece that is small.
const SMALL: usize = 8 << 10;

/// The most bytes of one class of small pieces.
const BYTES: usize = 16 << 10;

/// The most bytes of large pieces, of all classes together. They are parts of
/// bodies, of which each connection that is busy has two or three; musl has the
/// kernel map each of them anew.
const LARGE_BYTES: usize = 1 << 20;

/// Pieces that were given back, of each class those that came last.
pub struct Kept {
    classes: [Pieces; CLASSES],
    /// Of large pieces.
    large_bytes: usize,
    /// How often large pieces were taken and put.
    clock: u64,
}

#[derive(Clone, Copy)]
struct Pieces {
    count: usize,
    /// When one was taken or put last, if they are large.
    used: u64,
    pieces: [*mut u8; PIECES],
}

/// What became of a piece that was to be kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    Kept,
    /// It may be once this other one has been given back.
    After(Class, *mut u8),
    NoRoom,
}

impl Default for Kept {
    fn default() -> Self {
        let none = Pieces {
            count: 0,
            used: 0,
            pieces: [ptr::null_mut(); PIECES],
        };
        Self {
            classes: [none; CLASSES],
            large_bytes: 0,
            clock: 0,
        }
    }
}

impl Kept {
    /// The piece of a class that came last.
    #[inline]
    pub fn take(&mut self, class: Class) -> Option<*mut u8> {
        let Pieces { count, pieces, .. } = &mut self.classes[class.number];
        *count = count.checked_sub(1)?;
        let piece = pieces[*count];
        if class.size() > SMALL {
            self.large_bytes -= class.size();
            self.use_now(class);
        }
        Some(piece)
    }

    /// Keeps a piece if there is room for it.
    #[inline]
    pub fn put(&mut self, class: Class, piece: *mut u8) -> Put {
        let is_large = class.size() > SMALL;
        let most = match is_large {
            true => PIECES,
            false => (BYTES / class.size()).min(PIECES),
        };
        let count = self.classes[class.number].count;
        if count >= most {
            return Put::NoRoom;
        }
        if is_large {
            if self.large_bytes + class.size() > LARGE_BYTES {
                return match self.take_oldest(class) {
                    Some((class, piece)) => Put::After(class, piece),
                    None => Put::NoRoom,
                };
            }
            self.large_bytes += class.size();
            self.use_now(class);
        }
        let pieces = &mut self.classes[class.number];
        pieces.pieces[count] = piece;
        pieces.count = count + 1;
        Put::Kept
    }

    /// One of the large pieces of the class that has not been used for longest, so
    /// that a program that has come to want other sizes has room for them.
    #[cold]
    fn take_oldest(&mut self, but: Class) -> Option<(Class, *mut u8)> {
        let oldest = self
            .classes
            .iter()
            .enumerate()
            .filter(|(number, pieces)| *number != but.number && pieces.count > 0)
            .map(|(number, pieces)| (pieces.used, Class::numbered(number)))
            .filter(|(_, class)| class.size() > SMALL)
            .min_by_key(|(used, _)| *used);
        let (_, class) = oldest?;
        let pieces = &mut self.classes[class.number];
        pieces.count -= 1;
        self.large_bytes -= class.size();
        Some((class, pieces.pieces[pieces.count]))
    }

    fn use_now(&mut self, class: Class) {
        self.clock += 1;
        self.classes[class.number].used = self.clock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::Layout;

    fn class(size: usize) -> Class {
        Class::of(Layout::from_size_align(size, 1).expect("layout")).expect("class")
    }

    /// Puts as many as there is room for without giving others back.
    fn fill(kept: &mut Kept, class: Class) -> usize {
        let mut count = 0;
        while kept.put(class, ptr::without_provenance_mut(count + 1)) == Put::Kept {
            count += 1;
        }
        count
    }

    #[test]
    fn what_came_last_goes_first_and_what_is_too_much_is_not_kept() {
        let mut kept = Kept::default();
        for (size, most) in [
            (1, 32),
            (512, 32),
            (513, 25),
            (4096, 4),
            (SMALL, 2),
            (SMALL + 1, 32),
            (64 << 10, 16),
            (128 << 10, 8),
        ] {
            let class = class(size);
            assert_eq!(fill(&mut kept, class), most, "{size}");
            assert_eq!(kept.put(class, ptr::null_mut()), Put::NoRoom);
            for number in (1..=most).rev() {
                assert_eq!(kept.take(class).map(|piece| piece.addr()), Some(number));
            }
            assert_eq!(kept.take(class), None);
        }
        assert_eq!(kept.large_bytes, 0);
    }

    #[test]
    fn large_pieces_that_are_not_used_make_room_for_those_that_are() {
        let (old, new) = (class(96 << 10), class(128 << 10));
        let mut kept = Kept::default();
        let small = fill(&mut kept, class(SMALL));
        let before = fill(&mut kept, old);
        assert_eq!(before, 10);
        let (mut given_back, mut put) = (0, 0);
        loop {
            match kept.put(new, ptr::null_mut()) {
                Put::Kept => put += 1,
                Put::After(class, _) => {
                    assert_eq!(class, old);
                    given_back += 1;
                }
                Put::NoRoom => break,
            }
            assert!(kept.large_bytes <= LARGE_BYTES);
        }
        assert_eq!((given_back, put), (before, 8));
        assert_eq!(kept.take(old), None);
        assert_eq!(kept.classes[class(SMALL).number].count, small);
    }
}
