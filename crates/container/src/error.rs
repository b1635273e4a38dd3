//! What can go wrong in a container's life.

use std::io;
use std::path::PathBuf;

use libcontainer::error::LibcontainerError;
use nix::errno::Errno;

/// An error of a container's life cycle. Its text is what containerd shows.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The bundle's spec cannot be read or is not OCI.
    #[error("read {}: {reason}", path.display())]
    Spec {
        /// The `config.json`.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The spec lacks what every container needs, or asks for what wisp lacks.
    #[error("{0}")]
    Unsupported(String),
    /// The node's config file is bad.
    #[error(transparent)]
    Config(#[from] wisp_config::ConfigError),
    /// The annotations or the node's policy refuse.
    #[error(transparent)]
    Capability(#[from] wisp_capability::CapabilityError),
    /// The program cannot be found or read.
    #[error(transparent)]
    Image(#[from] wisp_image::ImageError),
    /// The program cannot be compiled or its AOT code not be had.
    #[error("{program}: {source}")]
    Aot {
        /// Its path in the image, or its layer.
        program: String,
        /// Why.
        source: wisp_aot::AotError,
    },
    /// The program cannot be linked.
    #[error("{program}: {source}")]
    Engine {
        /// Its path in the image, or its layer.
        program: String,
        /// Why.
        source: wisp_engine::EngineError,
    },
    /// The spec's seccomp profile cannot be applied.
    #[error("linux.seccomp: {0}")]
    Seccomp(String),
    /// A mount of the root file system failed.
    #[error("mount {source_path} at {}: {reason}", target.display())]
    Mount {
        /// The source as containerd gave it.
        source_path: String,
        /// Where it should be mounted.
        target: PathBuf,
        /// The kernel's answer.
        reason: String,
    },
    /// An unmount failed.
    #[error("unmount {}: {source}", path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// The kernel's answer.
        source: Errno,
    },
    /// A mount of the spec has no place in the root file system.
    #[error("mounts: destination {destination}: {reason}")]
    MountPoint {
        /// The spec's destination.
        destination: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// libcontainer refused.
    #[error("{what} container {id}: {reason}")]
    Library {
        /// What was asked of it.
        what: &'static str,
        /// The container.
        id: String,
        /// Its error and all causes.
        reason: String,
    },
    /// There is no libcontainer state to work on.
    #[error("no container state at {}", .0.display())]
    NoState(PathBuf),
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A limit cannot be set.
    #[error("limit {0}")]
    Limit(String),
    /// The init role could not be started or spoken to.
    #[error("init: {0}")]
    Init(String),
    /// The init role answered with a reason of its own.
    #[error("{0}")]
    Refused(String),
}

impl ContainerError {
    pub(crate) fn library(what: &'static str, id: &str, source: LibcontainerError) -> Self {
        Self::Library {
            what,
            id: id.to_owned(),
            reason: chain(&source),
        }
    }
}

/// An error with all its causes on one line; a cause whose text its parent
/// already contains is left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
