//! Why a container's program cannot be had.

use std::io;

/// An error of finding or reading the program of a container.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing says what to run.
    #[error(
        "process.args is empty: the image has no entrypoint and the container no command; \
         set one (`command:` in a pod spec, arguments of `ctr run`, `wisp pack --entrypoint`)"
    )]
    NoArgs,
    /// The root file system cannot be opened.
    #[error("open the root file system {path}: {source}")]
    Rootfs {
        /// Its path on the host.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// Nothing in the image answers to the name.
    #[error("{program:?} not found: {looked}")]
    NotFound {
        /// `process.args[0]`.
        program: String,
        /// Where it was looked for.
        looked: String,
    },
    /// A file of that name is there, and cannot be run.
    #[error("{path} in the image's root file system: {reason}")]
    NotRunnable {
        /// The file, as a path in the container.
        path: String,
        /// What it is and what was expected.
        reason: String,
    },
    /// The path cannot be resolved inside the root file system.
    #[error("{path} in the image's root file system: {source}")]
    Path {
        /// The path in the container.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// Several Wasm layers, and none is named by `args[0]`.
    #[error(
        "{program:?} names none of the image's Wasm layers: {titles}; \
         set the first argument to one of these titles"
    )]
    Ambiguous {
        /// `process.args[0]`.
        program: String,
        /// The layers' titles or digests.
        titles: String,
    },
    /// containerd did not answer as expected.
    #[error("{what} in containerd: {reason}")]
    Containerd {
        /// What was asked.
        what: String,
        /// The answer.
        reason: String,
    },
    /// The image's manifest or index is not what it should be.
    #[error("image {image}: {digest}: {reason}")]
    Manifest {
        /// The image's name.
        image: String,
        /// The document.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
}
