//! What a configuration means, as containerd prints it.

use toml::{Table, Value};

use crate::HANDLER;

/// The places of the table of runtimes, by schema.
const RUNTIMES: [[&str; 4]; 3] = [
    ["plugins", "cri", "containerd", "runtimes"],
    [
        "plugins",
        "io.containerd.grpc.v1.cri",
        "containerd",
        "runtimes",
    ],
    [
        "plugins",
        "io.containerd.cri.v1.runtime",
        "containerd",
        "runtimes",
    ],
];

/// A configuration with all that containerd adds to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    /// Everything but the runtime.
    rest: Table,
    runtime: Option<Table>,
    imports: Vec<String>,
}

impl Meaning {
    /// Reads what `containerd config dump` printed.
    ///
    /// # Errors
    /// When that is not TOML.
    pub fn of(dump: &str) -> Result<Self, String> {
        let mut rest: Table = dump
            .parse()
            .map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut runtime = None;
        for path in RUNTIMES {
            if let Some(Value::Table(found)) = at(&mut rest, &path).and_then(|t| t.remove(HANDLER))
            {
                runtime = Some(found);
            }
        }
        // Some versions print patterns and some the files that they found.
        let imports = match rest.remove("imports") {
            Some(Value::Array(all)) => all
                .into_iter()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            rest,
            runtime,
            imports,
        })
    }

    /// The shim that pods of the runtime get, if there is the runtime.
    pub fn shim(&self) -> Option<&str> {
        let value = |name: &str| self.runtime.as_ref()?.get(name)?.as_str();
        value("runtime_path").filter(|path| !path.is_empty())
    }

    /// The files and patterns that are read, too.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// The first key, the runtime apart, in which `new` is another.
    pub fn differs(&self, new: &Self) -> Option<String> {
        first_difference(&self.rest, &new.rest)
    }
}

fn at<'t>(table: &'t mut Table, path: &[&str]) -> Option<&'t mut Table> {
    path.iter()
        .try_fold(table, |table, name| table.get_mut(*name)?.as_table_mut())
}

/// An absent table and an empty one are the same.
fn first_difference(old: &Table, new: &Table) -> Option<String> {
    let empty = Value::Table(Table::new());
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (a, b) = (old.get(name), new.get(name));
        match (a.unwrap_or(&empty), b.unwrap_or(&empty)) {
            (Value::Table(a), Value::Table(b)) => {
                if let Some(below) = first_difference(a, b) {
                    return Some(format!("{name}.{below}"));
                }
            }
            (a, b) if a == b => {}
            _ => return Some(name.clone()),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Meaning {
        Meaning::of(text).expect("TOML")
    }

    #[test]
    fn the_runtime_is_no_difference_and_everything_else_is() {
        let old = of("root = '/r'\n[plugins.cri.containerd.runtimes.runc]\nruntime_type = 'a'\n");
        let new = of(
            "root = '/r'\n[plugins.cri.containerd.runtimes.runc]\nruntime_type = 'a'\n\
                      [plugins.cri.containerd.runtimes.wisp]\nruntime_path = '/s'\n",
        );
        assert_eq!(old.differs(&new), None);
        assert_eq!((old.shim(), new.shim()), (None, Some("/s")));
        // As containerd 1.x does it with a plugin's tables in two files.
        let lost = of("root = '/r'\n[plugins.cri.containerd.runtimes.wisp]\nruntime_path = '/s'\n");
        let key = old.differs(&lost).expect("runc is gone");
        assert_eq!(key, "plugins.cri.containerd.runtimes.runc.runtime_type");
        assert_eq!(
            old.differs(&of("root = '/x'\n")).as_deref(),
            Some("plugins.cri.containerd.runtimes.runc.runtime_type")
        );
    }

    #[test]
    fn what_is_imported_is_told_and_is_no_difference() {
        let old = of("imports = ['/etc/containerd/conf.d/*.toml']\n");
        assert_eq!(old.imports(), ["/etc/containerd/conf.d/*.toml"]);
        assert_eq!(old.differs(&of("[plugins]\n")), None);
        assert!(Meaning::of("no toml").is_err());
    }
}
