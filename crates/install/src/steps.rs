//! Installing and removing, step by step.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::change::{self, Change, How, Read, Subject};
use crate::error::InstallError;
use crate::files::{self, Staged};
use crate::layout::{self, below};
use crate::lock::Lock;
use crate::meaning::Meaning;
use crate::programs::{self, Found};
use crate::record::{Changed, Record, Records};

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

/// Brings `programs` to the node and tells containerd of them.
///
/// # Errors
/// Why the node is as it was before; only when containerd fails also with the
/// configuration that it had, not even that.
pub fn install(
    place: &Place,
    programs: &Found,
    node: &dyn Node,
    watch: &mut dyn Watch,
) -> Result<Done, InstallError> {
    let layout = layout::of(&place.root, &place.config);
    if let layout::Way::Instead(instead) = layout.way {
        return Err(InstallError::Immutable {
            distribution: layout.name,
            instead,
        });
    }
    let state = below(&place.root, &place.state);
    let old = meaning(node, &place.config)?;
    let _lock = Lock::take(&state)?;
    let records = Records(&state);
    let recorded = records.load()?.unwrap_or_default();

    step(watch, Step::Programs)?;
    // Where they are already, before any other place.
    let there = (!recorded.programs.as_os_str().is_empty()).then_some(recorded.programs.as_path());
    let wanted = place.programs.as_deref().or(there);
    // Written down before they are copied, or nobody would know that they are ours.
    let mut before = |programs: &Path| match there {
        Some(there) if there == programs => Ok(()),
        _ => records.save(&Record {
            programs: programs.to_owned(),
            ..recorded.clone()
        }),
    };
    let placed = match programs.place(&place.root, wanted, &mut before) {
        Ok(placed) => placed,
        Err(error) => {
            restore(&records, &recorded)?;
            return Err(error);
        }
    };
    let installed = placed.place;
    let shim = programs::shim(&installed);

    step(watch, Step::Validate)?;
    let subject = Subject {
        root: &place.root,
        layout: &layout,
        config: &place.config,
        imports: old.imports(),
        schema: place.schema,
        by_type: place.by_type,
    };
    let change = match validated(&subject, &old, &shim, node) {
        Ok(change) => change,
        Err(error) => {
            // What nobody will run does not stay, nor does a word of it.
            match there {
                Some(_) => programs::tidy(&place.root, &installed)?,
                None => programs::remove(&place.root, &installed)?,
            }
            restore(&records, &recorded)?;
            return Err(error);
        }
    };
    let configured = change.now.as_deref() != Some(&change.then);

    step(watch, Step::Record)?;
    let mut record = Record {
        version: programs.version.clone(),
        programs: installed.clone(),
        change: Some(remember(&records, &recorded, &change)?),
        proven: false,
    };
    records.save(&record)?;

    step(watch, Step::Configure)?;
    let file = below(&place.root, &change.file);
    let previous = programs::switch(&place.root, &installed, Some(&placed.name))?;
    let upgraded = recorded.proven && previous.as_ref().is_some_and(|name| *name != placed.name);
    if configured {
        Staged::write(&file, &change.then)?.place()?;
    }
    // Not proven means that an earlier run may have ended before the restart.
    let restarts = configured || !recorded.proven;
    let proven = live(node, watch, restarts, &shim);
    if let Err(error) = proven {
        if matches!(error, InstallError::Interrupted(_)) {
            return Err(error);
        }
        if upgraded {
            programs::switch(&place.root, &installed, previous.as_deref())?;
        }
        if !configured {
            if !upgraded {
                return Err(error);
            }
            records.save(&recorded)?;
            programs::tidy(&place.root, &installed)?;
            return Err(InstallError::Kept {
                why: error.to_string(),
                version: recorded.version,
            });
        }
        match &change.now {
            Some(now) => Staged::write(&file, now)?.place()?,
            None => files::remove(&file)?,
        }
        let restored = node.restart().and_then(|()| node.ready(None));
        return Err(InstallError::RolledBack {
            path: change.file,
            why: error.to_string(),
            restored,
        });
    }
    record.proven = true;
    records.save(&record)?;
    step(watch, Step::Tidy)?;
    programs::tidy(&place.root, &installed)?;
    Ok(Done {
        file: change.file,
        configured,
        shim,
    })
}

/// Makes the record what it was.
fn restore(records: &Records<'_>, recorded: &Record) -> Result<(), InstallError> {
    match *recorded == Record::default() {
        true => records.forget(),
        false => records.save(recorded),
    }
}

fn live(
    node: &dyn Node,
    watch: &mut dyn Watch,
    restarts: bool,
    shim: &Path,
) -> Result<(), InstallError> {
    if restarts {
        step(watch, Step::Restart)?;
        node.restart()
            .map_err(|e| InstallError::Node(format!("containerd does not restart: {e}")))?;
    }
    step(watch, Step::Ready)?;
    node.ready(Some(crate::HANDLER))
        .map_err(|e| InstallError::Node(format!("containerd is not ready: {e}")))?;
    step(watch, Step::Prove)?;
    node.prove(shim)
        .map_err(|e| InstallError::Node(format!("no container runs by wisp: {e}")))
}

/// The first change that means nothing but the runtime.
fn validated(
    subject: &Subject<'_>,
    old: &Meaning,
    shim: &Path,
    node: &dyn Node,
) -> Result<Change, InstallError> {
    let mut first = None;
    for change in subject.changes(shim)? {
        match validate(subject, old, shim, node, &change) {
            Ok(()) => return Ok(change),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| InstallError::Node("there is nothing to be changed".into())))
}

fn validate(
    subject: &Subject<'_>,
    old: &Meaning,
    shim: &Path,
    node: &dyn Node,
    change: &Change,
) -> Result<(), InstallError> {
    let refused = |reason: String| InstallError::Refused {
        path: change.file.clone(),
        reason,
    };
    // Beside the file, since containerd finds others from where that is.
    let at = |path: &Path| below(subject.root, path);
    let main = at(subject.config);
    let (_drop_in, staged) = match &change.read {
        Read::Main(bytes) => (None, Staged::write(&main, bytes)?),
        Read::DropIn(config) => {
            let drop_in = Staged::write(&at(&change.file), &change.then)?;
            let now = files::read(&main)?.unwrap_or_default();
            let name = drop_in.path().file_name().unwrap_or_default();
            let import = change.file.with_file_name(name);
            let text = change::importing(config, &now, &import)?;
            (Some(drop_in), Staged::write(&main, &text)?)
        }
        Read::Imported(import, bytes) => {
            let imported = Staged::write(&at(import), bytes)?;
            let now = files::read(&main)?.unwrap_or_default();
            let name = imported.path().file_name().unwrap_or_default();
            let instead = import.with_file_name(name);
            let text = change::importing_instead(subject.config, &now, import, &instead)?;
            (Some(imported), Staged::write(&main, &text)?)
        }
    };
    let name = staged.path().file_name().unwrap_or_default();
    let read = node
        .dump(&subject.config.with_file_name(name))
        .and_then(|dump| Meaning::of(&dump))
        .map_err(refused)?;
    if let Some(what) = old.differs(&read) {
        return Err(InstallError::ChangesMore {
            path: change.file.clone(),
            what,
        });
    }
    match read.shim() {
        Some(found) if Path::new(found) == shim => Ok(()),
        _ => Err(refused(format!(
            "it does not see the runtime {}",
            crate::HANDLER
        ))),
    }
}

/// What is written down of a change, and the original with it. What an earlier
/// run has put there is no original.
fn remember(
    records: &Records<'_>,
    recorded: &Record,
    change: &Change,
) -> Result<Changed, InstallError> {
    let now = change.now.as_deref();
    let earlier = recorded
        .change
        .as_ref()
        .filter(|earlier| earlier.file == change.file);
    let original = match (earlier, now) {
        (Some(earlier), Some(now)) if files::digest(now) == earlier.after => {
            records.original(earlier)?
        }
        // Interrupted before it was changed, or taken back by hand.
        (Some(earlier), now) if now.map(files::digest) == earlier.before => now.map(<[u8]>::to_vec),
        // Its owner has changed it since.
        (Some(earlier), Some(now)) => change::taken_back(&change.file, earlier.how, now)?,
        (_, now) => now.map(<[u8]>::to_vec),
    };
    if let Some(original) = &original {
        records.keep(original)?;
    }
    Ok(Changed {
        file: change.file.clone(),
        how: change.how,
        before: original.as_deref().map(files::digest),
        after: files::digest(&change.then),
    })
}

/// Takes from the node what [`install`] brought; `false` if that is nothing.
///
/// # Errors
/// Why not, and then all of it is still there.
pub fn uninstall(
    place: &Place,
    node: &dyn Node,
    watch: &mut dyn Watch,
) -> Result<bool, InstallError> {
    let state = below(&place.root, &place.state);
    if !state.exists() {
        return Ok(false);
    }
    let _lock = Lock::take(&state)?;
    let records = Records(&state);
    let Some(mut record) = records.load()? else {
        records.forget()?;
        return Ok(false);
    };
    let count = programs::in_use(&record.programs).len();
    if count > 0 {
        return Err(InstallError::InUse { count });
    }
    if let Some(changed) = &record.change {
        let file = below(&place.root, &changed.file);
        let now = files::read(&file)?;
        let then = match &now {
            Some(now) if files::digest(now) == changed.after => records.original(changed)?,
            Some(now) if Some(files::digest(now)) == changed.before => Some(now.clone()),
            Some(now) => change::taken_back(&changed.file, changed.how, now)?,
            None => None,
        };
        if then != now {
            let old = meaning(node, &place.config)?;
            step(watch, Step::Validate)?;
            if changed.how == How::Edit
                && let Some(then) = &then
                && changed.file == place.config
            {
                still_means(place, &old, then, node)?;
            }
            step(watch, Step::Configure)?;
            // The next run must know that a restart is due.
            record.proven = false;
            records.save(&record)?;
            match &then {
                Some(then) => Staged::write(&file, then)?.place()?,
                None => files::remove(&file)?,
            }
        }
        if then != now || !record.proven {
            step(watch, Step::Restart)?;
            let back = node.restart().and_then(|()| {
                if watch.before(Step::Ready).is_break() {
                    return Ok(());
                }
                node.ready(None)
            });
            if let Err(reason) = back {
                return Err(InstallError::Node(format!(
                    "{} is as it was before wisp, and containerd does not come up with it: \
                     {reason}",
                    changed.file.display()
                )));
            }
        }
    }
    step(watch, Step::Remove)?;
    programs::remove(&place.root, &record.programs)?;
    step(watch, Step::Forget)?;
    records.forget()?;
    Ok(true)
}

fn still_means(
    place: &Place,
    old: &Meaning,
    then: &[u8],
    node: &dyn Node,
) -> Result<(), InstallError> {
    let staged = Staged::write(&below(&place.root, &place.config), then)?;
    let name = staged.path().file_name().unwrap_or_default();
    let refused = |reason: String| InstallError::Refused {
        path: place.config.clone(),
        reason,
    };
    let read = node
        .dump(&place.config.with_file_name(name))
        .and_then(|dump| Meaning::of(&dump))
        .map_err(refused)?;
    match old.differs(&read) {
        Some(what) => Err(InstallError::ChangesMore {
            path: place.config.clone(),
            what,
        }),
        None => Ok(()),
    }
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

fn meaning(node: &dyn Node, config: &Path) -> Result<Meaning, InstallError> {
    node.dump(config)
        .and_then(|dump| Meaning::of(&dump))
        .map_err(|reason| InstallError::Malformed {
            path: config.to_owned(),
            reason,
        })
}

fn step(watch: &mut dyn Watch, step: Step) -> Result<(), InstallError> {
    match watch.before(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(InstallError::Interrupted(step.to_string())),
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
pub(crate) mod tests;
