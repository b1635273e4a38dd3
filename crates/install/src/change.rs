//! The change of containerd's configuration: where, and what.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{Array, value};

use crate::edit::{self, Fault, Runtime};
use crate::error::InstallError;
use crate::files;
use crate::layout::{Layout, Merged, Template, Way, below};

/// The file of ours in a directory that containerd imports.
const DROP_IN: &str = "wisp.toml";
/// Around what is ours in a template, which is no TOML.
const BEGIN: &str = "# begin wisp: `wisp node uninstall` removes this\n";
const END: &str = "# end wisp\n";

/// How a file is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// A table in the owner's file.
    Edit,
    /// A file of our own, which containerd imports.
    DropIn,
    /// Lines in a template.
    Template,
}

/// A change that can be made.
#[derive(Debug, Clone)]
pub struct Change {
    /// The file, on the node.
    pub file: PathBuf,
    pub how: How,
    /// What is there, `None` for no file.
    pub now: Option<Vec<u8>>,
    /// What is to be there.
    pub then: Vec<u8>,
    /// What containerd reads then: the whole of its configuration's file.
    pub read: Read,
}

/// What containerd is to read before anything is changed.
#[derive(Debug, Clone)]
pub enum Read {
    /// This, in the place of its configuration.
    Main(Vec<u8>),
    /// Its configuration, and the new file beside the others.
    DropIn(PathBuf),
    /// Its configuration, and these bytes in the place of a file that it imports.
    Imported(PathBuf, Vec<u8>),
}

/// A node's containerd, as far as its configuration goes.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Where the node's files are.
    pub root: &'a Path,
    pub layout: &'a Layout,
    /// Its configuration's file, on the node.
    pub config: &'a Path,
    /// What else it reads.
    pub imports: &'a [String],
    /// The schema of a configuration that is not there yet.
    pub schema: i64,
    /// See [`Runtime::by_type`].
    pub by_type: bool,
}

impl Subject<'_> {
    /// The changes that may do, the best first.
    ///
    /// # Errors
    /// A configuration that cannot be changed, and why.
    pub fn changes(&self, shim: &Path) -> Result<Vec<Change>, InstallError> {
        let shim = shim.to_string_lossy();
        let new = Runtime {
            shim: &shim,
            by_type: self.by_type,
        };
        match self.layout.way {
            Way::Instead(instead) => Err(InstallError::Immutable {
                distribution: self.layout.name,
                instead,
            }),
            Way::Template(template) => Ok(vec![self.template(&template, new)?]),
            Way::Source(name) => {
                let file = self.config.with_file_name(name);
                let main = self.edited(self.config, new)?.1;
                let (now, then) = self.edited(&file, new)?;
                Ok(vec![Change {
                    file,
                    how: How::Edit,
                    now,
                    then,
                    read: Read::Main(main),
                }])
            }
            Way::Merged(merged) => match self.merged(&merged, new)? {
                Some(change) => Ok(vec![change]),
                None => self.configured(new),
            },
            Way::Config => self.configured(new),
        }
    }

    fn configured(&self, new: Runtime<'_>) -> Result<Vec<Change>, InstallError> {
        let mut all: Vec<_> = self.drop_in(new).transpose()?.into_iter().collect();
        let (now, then) = self.edited(self.config, new)?;
        all.push(Change {
            file: self.config.to_owned(),
            how: How::Edit,
            now,
            read: Read::Main(then.clone()),
            then,
        });
        Ok(all)
    }

    /// A file among those that are merged, if they are.
    fn merged(&self, merged: &Merged, new: Runtime<'_>) -> Result<Option<Change>, InstallError> {
        let main = files::read(&below(self.root, self.config))?.unwrap_or_default();
        let main = text(self.config, &main)?;
        if !main.lines().any(|line| line.trim() == merged.sign) {
            return Ok(None);
        }
        let schema = edit::schema(&main).map_err(fault(self.config))?;
        let result = PathBuf::from(merged.result);
        let (_, then) = self.edited(&result, new)?;
        let file = self.config.with_file_name(merged.dir).join(DROP_IN);
        Ok(Some(Change {
            now: files::read(&below(self.root, &file))?,
            then: edit::alone(schema, new).map_err(fault(&file))?.into_bytes(),
            how: How::DropIn,
            read: Read::Imported(result, then),
            file,
        }))
    }

    /// `file` as it is and with the runtime.
    fn edited(
        &self,
        file: &Path,
        new: Runtime<'_>,
    ) -> Result<(Option<Vec<u8>>, Vec<u8>), InstallError> {
        let now = files::read(&below(self.root, file))?;
        let then = match &now {
            Some(now) => edit::with(&text(file, now)?, new),
            None => edit::alone(self.schema, new),
        };
        Ok((now, then.map_err(fault(file))?.into_bytes()))
    }

    /// A file in the first directory of which containerd imports all TOML, as
    /// long as its configuration does not have the runtime itself.
    fn drop_in(&self, new: Runtime<'_>) -> Option<Result<Change, InstallError>> {
        let pattern = self
            .imports
            .iter()
            .find_map(|import| import.strip_suffix("/*.toml"))?;
        let pattern = Path::new(pattern);
        let dir = match self.config.parent() {
            Some(parent) => parent.join(pattern),
            None => pattern.to_owned(),
        };
        below(self.root, &dir).is_dir().then(|| {
            let main = files::read(&below(self.root, self.config))?.unwrap_or_default();
            let schema = edit::schema(&text(self.config, &main)?).map_err(fault(self.config))?;
            let file = dir.join(DROP_IN);
            Ok(Change {
                now: files::read(&below(self.root, &file))?,
                then: edit::alone(schema, new).map_err(fault(&file))?.into_bytes(),
                how: How::DropIn,
                read: Read::DropIn(self.config.to_owned()),
                file,
            })
        })
    }

    fn template(&self, template: &Template, new: Runtime<'_>) -> Result<Change, InstallError> {
        let (_, main) = self.edited(self.config, new)?;
        let schema = edit::schema(&text(self.config, &main)?).map_err(fault(self.config))?;
        let name = if schema < 3 {
            template.old
        } else {
            template.new
        };
        let file = self.config.with_file_name(name);
        let now = files::read(&below(self.root, &file))?;
        let others = match &now {
            Some(now) => without_block(&text(&file, now)?),
            None => template.base.to_owned(),
        };
        // The first line says the version, which the template has already.
        let ours = edit::alone(schema, new).map_err(fault(&file))?;
        let ours = ours.split_once('\n').map_or("", |(_, rest)| rest);
        let gap = if others.is_empty() || others.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        Ok(Change {
            then: format!("{others}{gap}{BEGIN}{ours}{END}").into_bytes(),
            how: How::Template,
            read: Read::Main(main),
            file,
            now,
        })
    }
}

/// What is left of a changed file without what is ours; `None` for no file.
///
/// # Errors
/// A file that cannot be read any more.
pub fn taken_back(file: &Path, how: How, now: &[u8]) -> Result<Option<Vec<u8>>, InstallError> {
    match how {
        How::DropIn => Ok(None),
        How::Edit => edit::without(&text(file, now)?)
            .map(|text| Some(text.into_bytes()))
            .map_err(fault(file)),
        How::Template => Ok(Some(without_block(&text(file, now)?).into_bytes())),
    }
}

/// `main` with one more import, to be read in its place.
///
/// # Errors
/// When it is not TOML.
pub fn importing(file: &Path, main: &[u8], import: &Path) -> Result<Vec<u8>, InstallError> {
    let mut document = edit::parse(&text(file, main)?).map_err(fault(file))?;
    let imports = document
        .entry("imports")
        .or_insert_with(|| value(Array::new()));
    match imports.as_array_mut() {
        Some(imports) => imports.push(import.to_string_lossy().as_ref()),
        None => {
            let found = imports.type_name();
            return Err(fault(file)(Fault::NotATable("imports".into(), found)));
        }
    }
    Ok(document.to_string().into_bytes())
}

/// `main` with `new` in the place of its import `old`.
///
/// # Errors
/// When it is not TOML.
pub fn importing_instead(
    file: &Path,
    main: &[u8],
    old: &Path,
    new: &Path,
) -> Result<Vec<u8>, InstallError> {
    let mut text = importing(file, main, new)?;
    let mut document = edit::parse(&self::text(file, &text)?).map_err(fault(file))?;
    if let Some(imports) = document
        .get_mut("imports")
        .and_then(|all| all.as_array_mut())
    {
        imports.retain(|import| import.as_str().map(Path::new) != Some(old));
        text = document.to_string().into_bytes();
    }
    Ok(text)
}

fn without_block(text: &str) -> String {
    match (text.find(BEGIN), text.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{}", &text[..begin], &text[end + END.len()..])
        }
        _ => text.to_owned(),
    }
}

fn text(file: &Path, bytes: &[u8]) -> Result<String, InstallError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| InstallError::Malformed {
        path: file.to_owned(),
        reason: error.to_string(),
    })
}

fn fault(file: &Path) -> impl Fn(Fault) -> InstallError {
    let path = file.to_owned();
    move |fault| {
        let path = path.clone();
        match fault {
            Fault::Malformed(reason) => InstallError::Malformed { path, reason },
            Fault::NotATable(key, found) => InstallError::NotATable { path, key, found },
            Fault::Schema(version) => InstallError::Schema { path, version },
        }
    }
}
