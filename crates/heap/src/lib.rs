//! The allocator of wisp's programs: the C library's, before which threads that
//! serve requests keep what they have just given back.
//!
//! musl's allocator, which released programs have, is made to be small and hard to
//! attack, not fast: it takes a lock and about a hundred nanoseconds for each piece.
//! An instance of a component is a hundred pieces that come and go with each
//! request. Who calls [`keep`] has them at hand in a few nanoseconds; everybody
//! else, such as daemons and commands, which allocate once and want to be small,
//! has the C library's allocator and nothing more.
//!
//! What is kept is bounded, and known by an array of its own: nothing is written
//! into memory that was given back.

mod class;
mod kept;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

use class::Class;
use kept::{Kept, Put};

thread_local! {
    /// What this thread keeps; null if it keeps nothing. Without a destructor, as
    /// an allocator's has to be: the thread lives as long as its process.
    static KEPT: Cell<*mut Kept> = const { Cell::new(ptr::null_mut()) };
}

/// Has the calling thread keep what it gives back, for as long as it lives; what it
/// has kept by its end is lost, so it is for threads that live as long as their
/// process. At most 1.6 MiB. Does nothing where [`Heap`] is not the allocator.
pub fn keep() {
    if KEPT.get().is_null() {
        KEPT.set(Box::into_raw(Box::default()));
    }
}

/// The allocator: `#[global_allocator] static HEAP: Heap = Heap;`
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

/// This thread's, as long as nothing else is done with it.
fn with_kept<T>(use_it: impl FnOnce(&mut Kept) -> Option<T>) -> Option<T> {
    // A thread that ends may have none any more.
    let kept = KEPT.try_with(Cell::get).unwrap_or(ptr::null_mut());
    // SAFETY: null, or the box that `keep` made for this thread alone and nobody
    // frees. `use_it`, of this module, neither allocates nor comes here again.
    unsafe { kept.as_mut() }.and_then(use_it)
}

// SAFETY: a piece whose layout has a class is always asked of the C library with
// the class's layout and given back with it, on whichever thread; it is at least
// as large and as aligned as was asked for. A piece that is kept belongs to nobody
// else until it is taken out. Other layouts are the C library's alone.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        match with_kept(|kept| kept.take(class)) {
            Some(piece) => piece,
            // SAFETY: a class's size is not zero.
            None => unsafe { System.alloc(class.layout()) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some(class) = Class::of(layout) else {
            // SAFETY: the caller's promise; it came from there with this layout.
            return unsafe { System.dealloc(piece, layout) };
        };
        loop {
            let (class, piece, done) = match with_kept(|kept| Some(kept.put(class, piece))) {
                Some(Put::Kept) => return,
                Some(Put::After(other, piece)) => (other, piece, false),
                Some(Put::NoRoom) | None => (class, piece, true),
            };
            // SAFETY: it came from there with the layout of its class, and nobody
            // has it or keeps it.
            unsafe { System.dealloc(piece, class.layout()) };
            if done {
                return;
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = Class::of(layout) else {
            // SAFETY: the caller's promise. What is large comes from the kernel,
            // which has zeroed it.
            return unsafe { System.alloc_zeroed(layout) };
        };
        match with_kept(|kept| kept.take(class)) {
            Some(piece) => {
                // SAFETY: nobody else has it, and it is as large as its class.
                unsafe { piece.write_bytes(0, layout.size()) };
                piece
            }
            // SAFETY: a class's size is not zero.
            None => unsafe { System.alloc_zeroed(class.layout()) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise about size and alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Class::of(layout), Class::of(wanted)) {
            (Some(has), Some(wants)) if has == wants => piece,
            // SAFETY: the caller's promise; it came from there with this layout.
            (None, None) => unsafe { System.realloc(piece, layout, size) },
            _ => {
                // SAFETY: the caller's promise about `size`.
                let other = unsafe { self.alloc(wanted) };
                if !other.is_null() {
                    let both = layout.size().min(size);
                    // SAFETY: two pieces, each at least so large; the old one is
                    // given back as it was had.
                    unsafe {
                        ptr::copy_nonoverlapping(piece, other, both);
                        self.dealloc(piece, layout);
                    }
                }
                other
            }
        }
    }
}

#[cfg(test)]
mod tests;
