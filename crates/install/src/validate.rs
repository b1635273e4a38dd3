//! Trying a new configuration before it takes the old one's place.

use std::path::Path;

use crate::HANDLER;
use crate::change::{self, Change, Read, Subject};
use crate::error::InstallError;
use crate::files::{self, Staged};
use crate::layout::below;
use crate::meaning::Meaning;
use crate::steps::Node;

/// The first change that means nothing but the runtime.
///
/// # Errors
/// What is wrong with the best one.
pub fn validated(
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
        _ => Err(refused(format!("it does not see the runtime {}", HANDLER))),
    }
}
