//! OCI images: which bytes of one are the program, and how one is made.
//!
//! [`choose`] finds the program of a container among the files of its root
//! file system and the [Wasm layers](layers()) of its image; [`Images`] finds the
//! programs of images without containers, [`LocalImages`] those of images that are
//! files; [`pack`] makes images.

#![forbid(unsafe_code)]

mod blobs;
mod choose;
mod error;
mod events;
mod find;
pub mod format;
mod layers;
mod local;
mod manifest;
pub mod media;
pub mod pack;
mod programs;
mod rootfs;
mod store;

pub use choose::{Program, choose};
pub use error::ImageError;
pub use events::{ImageEvent, image_events};
pub use layers::{WasmLayer, layers};
pub use local::LocalImages;
pub use programs::{ImageProgram, ImageRecord, Images};
pub use rootfs::Rootfs;
