//! OCI images: which bytes of one are the program, and how one is made.

#![forbid(unsafe_code)]

pub mod format;
pub mod media;
pub mod pack;

// choose, content, error, rootfs: being written by the lead; see plan/common.md.
