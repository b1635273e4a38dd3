use std::io;

/// Why there is no program to run.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(
        "args: empty: the container names no program; give one, or an entry point to the image"
    )]
    NoArgs,
    #[error("root file system {path}: {reason}")]
    Rootfs { path: String, reason: io::Error },
    #[error("{what} {path} in the image: {reason}")]
    File {
        what: &'static str,
        path: String,
        reason: io::Error,
    },
    #[error(
        "{arg:?} is not in the image: looked for {places}, and for Wasm layers, of which it has \
         none"
    )]
    NotFound { arg: String, places: String },
    #[error("{path} in the image {is}")]
    NotAProgram { path: String, is: &'static str },
    #[error(
        "{path} in the image is precompiled native code, which is never run: put the .wasm it \
         was made from into the image"
    )]
    Precompiled { path: String },
    #[error(
        "{arg:?} is none of the image's {count} Wasm layers ({titles}) and no file in it: start \
         the container with the title of one"
    )]
    WhichLayer {
        arg: String,
        count: usize,
        titles: String,
    },
    #[error("ask containerd at {address} for {what}: {reason}")]
    Containerd {
        address: String,
        what: String,
        reason: String,
    },
    #[error("image {image} of container {container} is no longer in containerd")]
    ImageGone { image: String, container: String },
    #[error("image {image} is not in containerd's namespace {namespace}")]
    NoImage { image: String, namespace: String },
    #[error("{path}: {reason}")]
    Local { path: String, reason: io::Error },
    #[error("{what} of image {image}: {reason}")]
    Malformed {
        image: String,
        what: String,
        reason: String,
    },
}
