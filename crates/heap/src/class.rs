//! Sizes that pieces are had in.

use std::alloc::Layout;

/// What every piece is aligned to.
const ALIGN: usize = 16;

/// Up to here a class for each multiple of [`ALIGN`].
const FINE: usize = 512;
const FINE_CLASSES: usize = FINE / ALIGN;

/// From there to the largest, this many for each doubling.
const PER_DOUBLING: usize = 4;
const LARGEST: usize = 128 << 10;

/// How many classes there are.
pub const CLASSES: usize = FINE_CLASSES + PER_DOUBLING * (LARGEST.ilog2() - FINE.ilog2()) as usize;

/// A size that pieces are had in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Less than [`CLASSES`].
    pub number: usize,
    size: usize,
}

impl Class {
    /// The class of pieces with this layout, if those are kept at all.
    #[inline]
    pub fn of(layout: Layout) -> Option<Self> {
        let size = layout.size();
        if layout.align() > ALIGN || size > LARGEST || size == 0 {
            return None;
        }
        if size <= FINE {
            let number = (size - 1) / ALIGN;
            return Some(Self {
                number,
                size: (number + 1) * ALIGN,
            });
        }
        // Of the doubling that it is in, in four equal steps.
        let doubling = (size - 1).ilog2();
        let step = (1usize << doubling) / PER_DOUBLING;
        let steps = (size - 1 - (1 << doubling)) / step;
        let doublings = (doubling - FINE.ilog2()) as usize;
        Some(Self {
            number: FINE_CLASSES + doublings * PER_DOUBLING + steps,
            size: (1 << doubling) + (steps + 1) * step,
        })
    }

    /// The one with this number, which is less than [`CLASSES`].
    pub fn numbered(number: usize) -> Self {
        let size = match number.checked_sub(FINE_CLASSES) {
            None => (number + 1) * ALIGN,
            Some(beyond) => {
                let doubling = FINE << (beyond / PER_DOUBLING);
                doubling + (beyond % PER_DOUBLING + 1) * (doubling / PER_DOUBLING)
            }
        };
        Self { number, size }
    }

    /// What the C library is asked for.
    #[inline]
    pub fn layout(self) -> Layout {
        // SAFETY: 16 is a power of two, and the size at most 128 KiB.
        unsafe { Layout::from_size_align_unchecked(self.size, ALIGN) }
    }

    /// Bytes of a piece.
    pub fn size(self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: usize) -> Option<Class> {
        Class::of(Layout::from_size_align(size, 8).expect("layout"))
    }

    #[test]
    fn each_size_has_a_class_that_is_large_enough_and_not_a_quarter_too_large() {
        let mut before = Class {
            number: 0,
            size: 16,
        };
        for size in 1..=LARGEST {
            let class = of(size).expect("class");
            assert!(class.size >= size, "{size}: {class:?}");
            assert!(
                class.size < size + 16 || class.size * 4 <= size * 5,
                "{size}: {class:?}"
            );
            // Whatever has its size is of the same class.
            assert_eq!(of(class.size), Some(class));
            assert_eq!(Class::numbered(class.number), class);
            // In order, and without gaps.
            assert!(
                class == before || class.number == before.number + 1 && class.size > before.size
            );
            before = class;
        }
        assert_eq!(
            before,
            Class {
                number: CLASSES - 1,
                size: LARGEST
            }
        );
    }

    #[test]
    fn what_is_large_aligned_or_nothing_has_none() {
        assert_eq!(of(LARGEST + 1), None);
        assert_eq!(of(0), None);
        assert_eq!(of(isize::MAX as usize - 7), None);
        assert_eq!(
            Class::of(Layout::from_size_align(64, 32).expect("layout")),
            None
        );
        assert!(Class::of(Layout::from_size_align(64, 16).expect("layout")).is_some());
    }
}
