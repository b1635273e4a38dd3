//! What installing and removing have in common: the node, the steps, what is known
//! afterwards.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::error::InstallError;
use crate::layout::below;
use crate::meaning::Meaning;
use crate::programs;
use crate::record::{Record, Records};

/// What installing and removing need of the running node.
pub trait Node {
    /// What containerd makes of the configuration in `file` (a path on the
    /// node), defaults included: `containerd config dump`.
    ///
    /// # Errors
    /// containerd's words.
    fn dump(&self, file: &Path) -> Result<String, String>;

    /// Starts containerd anew, with the configuration that is there now, and
    /// leaves its containers alone.
    ///
    /// # Errors
    /// Why that did not work.
    fn restart(&self) -> Result<(), String>;

    /// Waits until pods can be made, and, if `handler` is given, until it is one
    /// of the runtimes that they can name.
    ///
    /// # Errors
    /// What is not there in the end.
    fn ready(&self, handler: Option<&str>) -> Result<(), String>;

    /// Runs something by the runtime whose shim is `shim`.
    ///
    /// # Errors
    /// Why that did not work.
    fn prove(&self, shim: &Path) -> Result<(), String>;
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The programs are copied.
    Programs,
    /// containerd reads the new configuration on trial.
    Validate,
    /// What there is and what will be is written down.
    Record,
    /// The configuration takes its place.
    Configure,
    /// containerd starts anew.
    Restart,
    /// It comes up and has the runtime (or has it no more).
    Ready,
    /// Something runs by it.
    Prove,
    /// Old programs go.
    Tidy,
    /// The programs go.
    Remove,
    /// The record goes.
    Forget,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Programs => "copy the programs",
            Self::Validate => "have containerd read the new configuration",
            Self::Record => "write down what changes",
            Self::Configure => "change the configuration",
            Self::Restart => "restart containerd",
            Self::Ready => "wait for containerd",
            Self::Prove => "run a container",
            Self::Tidy => "remove programs that nobody runs",
            Self::Remove => "remove the programs",
            Self::Forget => "forget what was written down",
        })
    }
}

/// Hears of each step before it is done. Who breaks ends it as a crash would:
/// nothing is undone.
pub trait Watch {
    /// Before `step`.
    fn before(&mut self, step: Step) -> ControlFlow<()>;
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node's files: `/`, or where a pod has them mounted.
    pub root: PathBuf,
    /// The file of containerd's configuration, on the node.
    pub config: PathBuf,
    /// The directory of what is written down, on the node.
    pub state: PathBuf,
    /// The directory of the programs, on the node; else one that will do.
    pub programs: Option<PathBuf>,
    /// The schema of a configuration that is not there yet.
    pub schema: i64,
    /// Whether the shim's path is to be the runtime's type: containerd before
    /// 1.7 does not look at `runtime_path` for pods.
    pub by_type: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The file of containerd's configuration that has the runtime.
    pub file: PathBuf,
    /// Whether anything about that changed.
    pub configured: bool,
    /// The shim that containerd runs.
    pub shim: PathBuf,
}

/// What there is of wisp on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What was written down, if anything was installed.
    pub record: Option<Record>,
    /// The shim that containerd's configuration names for pods.
    pub shim: Option<PathBuf>,
    /// The processes that run it.
    pub in_use: Vec<i32>,
}

/// What there is of wisp on the node.
///
/// # Errors
/// What cannot be read.
pub fn status(place: &Place, node: &dyn Node) -> Result<State, InstallError> {
    let record = Records(&below(&place.root, &place.state)).load()?;
    let shim = meaning(node, &place.config)?.shim().map(PathBuf::from);
    let dir = record.as_ref().map(|record| record.programs.clone());
    Ok(State {
        in_use: dir.map(|dir| programs::in_use(&dir)).unwrap_or_default(),
        record,
        shim,
    })
}

/// What the running containerd makes of its configuration.
pub(crate) fn meaning(node: &dyn Node, config: &Path) -> Result<Meaning, InstallError> {
    node.dump(config)
        .and_then(|dump| Meaning::of(&dump))
        .map_err(|reason| InstallError::Malformed {
            path: config.to_owned(),
            reason,
        })
}

/// Says what comes next; an error if that is the end.
pub(crate) fn step(watch: &mut dyn Watch, step: Step) -> Result<(), InstallError> {
    match watch.before(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(InstallError::Interrupted(step.to_string())),
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
