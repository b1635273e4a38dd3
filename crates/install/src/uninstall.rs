//! Taking wisp from a node.

use std::path::Path;

use crate::change::{self, How};
use crate::error::InstallError;
use crate::files::{self, Staged};
use crate::layout::below;
use crate::lock::Lock;
use crate::meaning::Meaning;
use crate::programs;
use crate::record::Records;
use crate::steps::{Node, Place, Step, Watch, meaning, step};

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
    // Pods that came meanwhile, while there was still the runtime.
    let count = programs::in_use(&record.programs).len();
    if count > 0 {
        return Err(InstallError::InUse { count });
    }
    step(watch, Step::Remove)?;
    programs::remove(&place.root, &record.programs)?;
    step(watch, Step::Forget)?;
    records.forget()?;
    Ok(true)
}

/// A node whose containerd does not run, and does not come up: it is not asked.
#[derive(Debug, Clone, Copy)]
pub struct Offline;

impl Node for Offline {
    fn dump(&self, _: &Path) -> Result<String, String> {
        // Whatever comes back means what it meant before wisp.
        Ok(String::new())
    }

    fn restart(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self, _: Option<&str>) -> Result<(), String> {
        Ok(())
    }

    fn prove(&self, _: &Path) -> Result<(), String> {
        Err("containerd does not run".into())
    }
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
