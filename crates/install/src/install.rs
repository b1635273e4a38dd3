//! Bringing wisp to a node.

use std::path::{Path, PathBuf};

use crate::change::{Change, Subject};
use crate::error::InstallError;
use crate::files::{self, Staged};
use crate::layout::{self, below};
use crate::lock::Lock;
use crate::programs::{self, Found};
use crate::record::{Fallback, Record, Records};
use crate::steps::{Done, Node, Place, Step, Watch, meaning, step};
use crate::validate::validated;
use crate::{HANDLER, change};

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
    let before = Before {
        root: &place.root,
        recorded: records.load()?.unwrap_or_default(),
        records,
    };

    step(watch, Step::Programs)?;
    let (installed, build) = before.place(programs, place.programs.as_deref())?;
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
    let change = validated(&subject, &old, &shim, node)
        .or_else(|error| before.without(&installed, error))?;
    let configured = change.now.as_deref() != Some(&change.then);

    step(watch, Step::Record)?;
    let current = programs::current(&place.root, &installed);
    let recorded = &before.recorded;
    let as_before = recorded.proven && !configured && current.as_ref() == Some(&build);
    let remembered = match as_before {
        true => None,
        false => Some(
            before
                .remember(programs, &installed, &change, current)
                .or_else(|error| before.without(&installed, error))?,
        ),
    };

    step(watch, Step::Configure)?;
    let made = programs::switch(&place.root, &installed, &build).and_then(|()| match configured {
        true => Staged::write(&below(&place.root, &change.file), &change.then)?.place(),
        false => Ok(()),
    });
    // Not proven means that an earlier run may have ended before the restart.
    let restarts = configured || !recorded.proven;
    let proven = made.and_then(|()| live(node, watch, restarts, &shim));
    let proven = match (proven, remembered) {
        (Err(interrupted @ InstallError::Interrupted(_)), _) => return Err(interrupted),
        // There is nothing to go back to.
        (Err(error), None) => return Err(error),
        (Err(error), Some(new)) => return Err(before.again(&new, &change, node, &error)?),
        (Ok(()), remembered) => remembered,
    };
    if let Some(new) = proven {
        before.records.save(&Record {
            proven: true,
            fallback: None,
            ..new.record
        })?;
    }
    step(watch, Step::Tidy)?;
    programs::tidy(&place.root, &installed, None)?;
    Ok(Done {
        file: change.file,
        configured,
        shim,
    })
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
    node.ready(Some(HANDLER))
        .map_err(|e| InstallError::Node(format!("containerd is not ready: {e}")))?;
    step(watch, Step::Prove)?;
    node.prove(shim)
        .map_err(|e| InstallError::Node(format!("no container runs by wisp: {e}")))
}

/// What there was, to go back to.
struct Before<'a> {
    root: &'a Path,
    records: Records<'a>,
    recorded: Record,
}

/// What was written down before the first change.
struct Remembered {
    record: Record,
    /// What the changed file was before there was anything of wisp in it.
    original: Option<Vec<u8>>,
}

impl Before<'_> {
    /// Where programs are already.
    fn there(&self) -> Option<&Path> {
        let place = self.recorded.programs.as_path();
        (!place.as_os_str().is_empty()).then_some(place)
    }

    /// Copies the programs; answers the directory of all versions and the one of
    /// these in it.
    fn place(
        &self,
        programs: &Found,
        wanted: Option<&Path>,
    ) -> Result<(PathBuf, PathBuf), InstallError> {
        let there = self.there();
        if let (Some(there), Some(wanted)) = (there, wanted)
            && there != wanted
        {
            return Err(InstallError::Elsewhere {
                there: there.to_owned(),
                wanted: wanted.to_owned(),
            });
        }
        // Written down before they are copied, or nobody would know that they are ours.
        let mut before = |programs: &Path| match there {
            Some(_) => Ok(()),
            None => self.records.save(&Record {
                programs: programs.to_owned(),
                ..self.recorded.clone()
            }),
        };
        match programs.place(self.root, wanted.or(there), &mut before) {
            Ok(placed) => Ok((placed.place, placed.name)),
            Err(error) => {
                self.restore()?;
                Err(error)
            }
        }
    }

    /// Makes the record what it was.
    fn restore(&self) -> Result<(), InstallError> {
        match self.recorded == Record::default() {
            true => self.records.forget(),
            false => self.records.save(&self.recorded),
        }
    }

    /// The end with `error` before anything but programs has come: what nobody
    /// will run does not stay, nor does a word of it.
    fn without<T>(&self, installed: &Path, error: InstallError) -> Result<T, InstallError> {
        let fallback = self.recorded.fallback.as_ref();
        match self.there() {
            Some(_) => programs::tidy(self.root, installed, fallback.map(|f| f.build.as_path()))?,
            None => programs::remove(self.root, installed)?,
        }
        self.restore()?;
        Err(error)
    }

    /// Writes down what is about to change, and the original with it.
    fn remember(
        &self,
        programs: &Found,
        installed: &Path,
        change: &Change,
        current: Option<PathBuf>,
    ) -> Result<Remembered, InstallError> {
        let original = self.original(change)?;
        if let Some(original) = &original {
            self.records.keep(original)?;
        }
        let proven = self.recorded.proven.then_some(current).flatten();
        let fallback = proven.map(|build| Fallback {
            version: self.recorded.version.clone(),
            build,
        });
        let record = Record {
            version: programs.version.clone(),
            programs: installed.to_owned(),
            change: Some(crate::record::Changed {
                file: change.file.clone(),
                how: change.how,
                before: original.as_deref().map(files::digest),
                after: files::digest(&change.then),
            }),
            proven: false,
            // Of an interrupted upgrade the one that was proven last.
            fallback: fallback.or_else(|| self.recorded.fallback.clone()),
        };
        self.records.save(&record)?;
        Ok(Remembered { record, original })
    }

    /// What the file was before wisp. What an earlier run has put there is no
    /// original.
    fn original(&self, change: &Change) -> Result<Option<Vec<u8>>, InstallError> {
        let now = change.now.as_deref();
        let earlier = self
            .recorded
            .change
            .as_ref()
            .filter(|earlier| earlier.file == change.file);
        match (earlier, now) {
            (Some(earlier), Some(now)) if files::digest(now) == earlier.after => {
                self.records.original(earlier)
            }
            // Interrupted before it was changed, or taken back by hand.
            (Some(earlier), now) if now.map(files::digest) == earlier.before => {
                Ok(now.map(<[u8]>::to_vec))
            }
            // Its owner has changed it since.
            (Some(earlier), Some(now)) => change::taken_back(&change.file, earlier.how, now),
            (_, now) => Ok(now.map(<[u8]>::to_vec)),
        }
    }

    /// Goes back to what worked last, or to what there was before wisp; answers
    /// what is to be said of it.
    fn again(
        &self,
        new: &Remembered,
        change: &Change,
        node: &dyn Node,
        why: &InstallError,
    ) -> Result<InstallError, InstallError> {
        let why = why.to_string();
        let installed = &new.record.programs;
        let known = new.record.fallback.as_ref();
        let file = below(self.root, &change.file);
        // What was there when this began may be of a run that was interrupted.
        let wanted = match known {
            Some(_) => &change.now,
            None => &new.original,
        };
        let mut restored = None;
        if files::read(&file)? != *wanted {
            match wanted {
                Some(bytes) => Staged::write(&file, bytes)?.place()?,
                None => files::remove(&file)?,
            }
            restored = Some(node.restart().and_then(|()| node.ready(None)));
        }
        match known {
            Some(known) => {
                programs::switch(self.root, installed, &known.build)?;
                self.records.save(&Record {
                    version: known.version.clone(),
                    proven: true,
                    fallback: None,
                    ..self.recorded.clone()
                })?;
                programs::tidy(self.root, installed, None)?;
            }
            // Whoever comes next must know of them if containerd does not come back.
            None if matches!(restored, Some(Err(_))) => {}
            None => {
                programs::remove(self.root, installed)?;
                if programs::in_use(installed).is_empty() {
                    self.records.forget()?;
                }
            }
        }
        Ok(match (restored, known) {
            (Some(restored), _) => InstallError::RolledBack {
                path: change.file.clone(),
                why,
                restored,
            },
            (None, Some(known)) => InstallError::Kept {
                why,
                version: known.version.clone(),
            },
            (None, None) => InstallError::Node(why),
        })
    }
}
