//! OCI images: which bytes of one are the program, and how one is made.
//!
//! [`choose`] finds the program of a container among the files of its root
//! file system and the [Wasm layers](layers()) of its image; [`pack`] makes
//! images.

#![forbid(unsafe_code)]

mod choose;
mod error;
pub mod format;
mod layers;
mod manifest;
pub mod media;
pub mod pack;
mod rootfs;

pub use choose::{Program, choose};
pub use error::ImageError;
pub use layers::{WasmLayer, layers};
pub use rootfs::Rootfs;
