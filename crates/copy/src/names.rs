//! The C library's names, which whoever links this finds before the C library's.

use core::ffi::c_int;

/// `memcpy(3)`.
///
/// # Safety
/// As [`crate::copy`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { crate::copy(to, from, count) };
    to
}

/// `memmove(3)`.
///
/// # Safety
/// As [`crate::copy`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { crate::copy(to, from, count) };
    to
}

/// `memset(3)`.
///
/// # Safety
/// As [`crate::fill`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: c_int, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { crate::fill(to, byte as u8, count) };
    to
}

/// `memcmp(3)`.
///
/// # Safety
/// As [`crate::compare`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { crate::compare(one, other, count) }
}

/// `bcmp(3)`.
///
/// # Safety
/// As [`crate::compare`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { crate::compare(one, other, count) }
}
