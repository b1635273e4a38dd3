//! What can keep wisp from a node.

use std::io;
use std::path::{Path, PathBuf};

/// Why nothing was installed or removed. Unless it says otherwise, the node is
/// as it was before.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory.
    #[error("{what} {}: {source}{}", path.display(), way_out(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A configuration that is not TOML.
    #[error("{}: {reason}; correct it first, containerd cannot have started with it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// A configuration whose tables are something else.
    #[error("{}: {key} is {found}, not a table", path.display())]
    NotATable {
        /// The file.
        path: PathBuf,
        /// Where in it.
        key: String,
        /// What it is.
        found: &'static str,
    },
    /// A schema of containerd's configuration that is not known.
    #[error("{}: version {version} of containerd's configuration is not known; 1 to 4 are", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        version: i64,
    },
    /// A program that cannot be installed.
    #[error("{}: {reason}", path.display())]
    Program {
        /// Where it was looked for.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No directory for programs.
    #[error("no directory can be written to and run programs from: {0}; name one with --programs")]
    NoDirectory(String),
    /// Programs are in another directory than is asked for.
    #[error(
        "wisp is in {} already: `wisp node uninstall` first to have it in {}",
        there.display(),
        wanted.display()
    )]
    Elsewhere {
        /// Where they are.
        there: PathBuf,
        /// Where they are wanted.
        wanted: PathBuf,
    },
    /// containerd refuses the new configuration.
    #[error("containerd does not read the new {}: {reason}; nothing was changed", path.display())]
    Refused {
        /// The file that was to be changed.
        path: PathBuf,
        /// containerd's words.
        reason: String,
    },
    /// The new configuration means something else than it should.
    #[error("the new {} would change more than the runtime: {what}; nothing was changed", path.display())]
    ChangesMore {
        /// The file that was to be changed.
        path: PathBuf,
        /// The first key that differs.
        what: String,
    },
    /// A system that cannot be changed at run time.
    #[error("{distribution}: {instead}")]
    Immutable {
        /// Which.
        distribution: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The configuration was changed and that did not work out.
    #[error("{why}; {} is as it was before{}", path.display(), after(restored))]
    RolledBack {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
        /// What is wrong also with the old one.
        restored: Result<(), String>,
    },
    /// A new version did not work out, and the one before is back.
    #[error("{why}; version {version}, which was there before, stays")]
    Kept {
        /// What went wrong.
        why: String,
        /// Which it is.
        version: String,
    },
    /// Containers still run by what is to be removed.
    #[error(
        "{count} processes of wisp still run; end their pods first, or wait for them with --wait"
    )]
    InUse {
        /// How many.
        count: usize,
    },
    /// What was recorded cannot be understood.
    #[error("{}: {reason}; it says what was installed, and is from a newer wisp or damaged", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The node does not do what it is asked.
    #[error("{0}")]
    Node(String),
    /// The [watch](crate::Watch) ended it.
    #[error("interrupted before the step: {0}")]
    Interrupted(String),
}

impl InstallError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run it as root",
        io::ErrorKind::ReadOnlyFilesystem => {
            ": this system cannot be changed at run time; build wisp into its image"
        }
        io::ErrorKind::StorageFull => ": make room",
        _ => "",
    }
}

fn after(restored: &Result<(), String>) -> String {
    match restored {
        Ok(()) => String::new(),
        Err(reason) => format!(", and containerd does not come back with it: {reason}"),
    }
}
