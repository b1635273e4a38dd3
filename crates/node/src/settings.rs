//! containerd's configuration, as `containerd config dump` prints it, in any of
//! its schemas.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{ANNOTATIONS, RUNTIME_TYPE, SHIM};

/// What is no configuration of containerd's.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It is not TOML.
    #[error("not TOML: {0}")]
    Malformed(String),
    /// It is of a schema that nobody knows yet.
    #[error("of schema version {0}; 1 to 4 are known")]
    Schema(i64),
}

/// The configuration, as far as it concerns a runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The schema's version: 2 until containerd 1.7, 3 from 2.0 on.
    pub schema: i64,
    /// containerd's directory of images and snapshots.
    pub root: PathBuf,
    /// containerd's directory of bundles.
    pub state: PathBuf,
    /// What serves Kubernetes, unless it is disabled.
    pub cri: Option<Cri>,
}

/// The configuration of Kubernetes' plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cri {
    /// The runtime of pods that name none.
    pub default_runtime: String,
    /// What image layers are unpacked with.
    pub snapshotter: String,
    /// The runtimes by the name that a RuntimeClass's handler has.
    pub runtimes: BTreeMap<String, Runtime>,
}

/// A runtime that pods can name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Runtime {
    /// Such as `io.containerd.runc.v2`.
    pub runtime_type: String,
    /// The shim's binary, if it is not to be found by the type.
    pub runtime_path: String,
    /// The pod's annotations that its containers get.
    pub pod_annotations: Vec<String>,
    /// What the shim is told.
    pub options: Options,
}

/// A runtime's options that mean something here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The file with the shim's settings.
    #[serde(rename = "ConfigPath")]
    pub config_path: String,
    /// Whether runc asks systemd for cgroups.
    #[serde(rename = "SystemdCgroup")]
    pub systemd_cgroup: bool,
}

impl Settings {
    /// Reads a configuration.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            SettingsError::Malformed(error.message().to_owned())
        })?;
        // A file without a version is of the first.
        let schema = table
            .get("version")
            .and_then(Value::as_integer)
            .unwrap_or(1);
        let (plugin, images) = match schema {
            1 => ("cri", "cri"),
            2 => ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
            // Of the fourth, what concerns a runtime is as in the third.
            3 | 4 => (
                "io.containerd.cri.v1.runtime",
                "io.containerd.cri.v1.images",
            ),
            other => return Err(SettingsError::Schema(other)),
        };
        let path = |name: &str, default: &str| {
            let value = table.get(name).and_then(Value::as_str).unwrap_or_default();
            PathBuf::from(if value.is_empty() { default } else { value })
        };
        let disabled = table
            .get("disabled_plugins")
            .and_then(Value::as_array)
            .is_some_and(|all| {
                all.iter().filter_map(Value::as_str).any(|name| {
                    // Also by its name of before, whatever the schema.
                    name == plugin || name == "cri" || name == "io.containerd.grpc.v1.cri"
                })
            });
        Ok(Self {
            schema,
            root: path("root", "/var/lib/containerd"),
            state: path("state", "/run/containerd"),
            cri: (!disabled).then(|| Cri::of(&table, plugin, images)),
        })
    }
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (last, dirs) = path.split_last()?;
    let mut table = table;
    for dir in dirs {
        table = table.get(*dir)?.as_table()?;
    }
    table.get(*last)
}

impl Cri {
    fn of(table: &Table, plugin: &str, images: &str) -> Self {
        let text = |path: &[&str], default: &str| {
            let value = at(table, path).and_then(Value::as_str).unwrap_or_default();
            if value.is_empty() { default } else { value }.to_owned()
        };
        let runtimes = at(table, &["plugins", plugin, "containerd", "runtimes"])
            .and_then(Value::as_table)
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                // What is of another type than it should be is as good as absent;
                // containerd would not have started with it.
                let runtime = value.clone().try_into().unwrap_or_default();
                (name.clone(), runtime)
            })
            .collect();
        let old = text(
            &["plugins", images, "containerd", "snapshotter"],
            "overlayfs",
        );
        Self {
            default_runtime: text(
                &["plugins", plugin, "containerd", "default_runtime_name"],
                "runc",
            ),
            snapshotter: text(&["plugins", images, "snapshotter"], &old),
            runtimes,
        }
    }

    /// The runtimes that are wisp, by their names.
    pub fn wisp(&self) -> Vec<(&str, &Runtime)> {
        self.runtimes
            .iter()
            .filter(|(_, runtime)| runtime.is_wisp())
            .map(|(name, runtime)| (name.as_str(), runtime))
            .collect()
    }
}

impl Runtime {
    /// Whether its type is wisp's, or the path of wisp's shim.
    pub fn is_wisp(&self) -> bool {
        let kind = Path::new(&self.runtime_type);
        self.runtime_type == RUNTIME_TYPE
            || (kind.is_absolute() && kind.file_name().is_some_and(|name| name == SHIM))
    }

    /// Whether containers get their pod's annotations for wisp.
    pub fn passes_annotations(&self) -> bool {
        // One key of each family stands for all of them.
        [
            "io.wisp.fs.root",
            "io.wisp.net.outbound",
            "io.wisp.http.listen",
        ]
        .iter()
        .all(|key| {
            self.pod_annotations
                .iter()
                .any(|pattern| matches(pattern, key))
        })
    }
}

/// Whether a pattern of containerd's covers a key: `*` is any text without a
/// slash, and no key here has one.
fn matches(pattern: &str, key: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == key,
        Some((before, after)) => key.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter_map(|from| rest.get(from..))
                .any(|rest| matches(after, rest))
        }),
    }
}

/// What is to be added to containerd's configuration of a schema for pods to be
/// able to name wisp.
pub fn snippet(schema: i64) -> String {
    let plugin = match schema {
        1 => "cri",
        2 => "\"io.containerd.grpc.v1.cri\"",
        _ => "\"io.containerd.cri.v1.runtime\"",
    };
    format!(
        "[plugins.{plugin}.containerd.runtimes.wisp]\n\
         runtime_type = \"{RUNTIME_TYPE}\"\n\
         pod_annotations = [\"{ANNOTATIONS}\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMPS: [(i64, &str); 2] = [
        (2, include_str!("fixtures/containerd-1.6.toml")),
        (3, include_str!("fixtures/containerd-2.1.toml")),
    ];

    #[test]
    fn dumps_of_both_versions_say_the_same() {
        for (schema, dump) in DUMPS {
            let settings = Settings::parse(dump).expect("a configuration");
            assert_eq!(settings.schema, schema);
            assert_eq!(settings.root, PathBuf::from("/var/lib/containerd"));
            assert_eq!(settings.state, PathBuf::from("/run/containerd"));
            let cri = settings.cri.expect("it is enabled");
            assert_eq!(cri.default_runtime, "runc");
            assert_eq!(cri.snapshotter, "overlayfs");
            assert!(cri.runtimes["runc"].options.systemd_cgroup);
            let wisp = cri.wisp();
            assert_eq!(wisp.len(), 1, "{wisp:?}");
            let (name, runtime) = wisp[0];
            assert_eq!(name, "wisp");
            assert_eq!(runtime.options.config_path, "/etc/wisp/pods.toml");
            assert!(runtime.passes_annotations());
            assert!(!cri.runtimes["runc"].passes_annotations());
        }
    }

    #[test]
    fn the_first_schema_has_short_names() {
        let text = "disabled_plugins = []\n".to_owned() + &snippet(1);
        let cri = Settings::parse(&text).expect("valid").cri.expect("enabled");
        assert_eq!(cri.wisp().len(), 1);
    }

    #[test]
    fn what_is_to_be_added_is_understood_in_each_schema() {
        for schema in [2, 3] {
            let text = format!("version = {schema}\n{}", snippet(schema));
            let cri = Settings::parse(&text).expect("valid").cri.expect("enabled");
            assert!(cri.wisp()[0].1.passes_annotations(), "{text}");
        }
    }

    #[test]
    fn a_disabled_plugin_has_no_settings() {
        for name in [
            "cri",
            "io.containerd.grpc.v1.cri",
            "io.containerd.cri.v1.runtime",
        ] {
            let text = format!("version = 3\ndisabled_plugins = [{name:?}]\n");
            assert_eq!(Settings::parse(&text).expect("valid").cri, None, "{name}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        assert!(Settings::parse("not toml").is_err());
        let error = Settings::parse("version = 9").expect_err("unknown");
        assert!(error.to_string().contains('9'), "{error}");
        // A runtime of the wrong shape is no reason to give up on the others.
        let text =
            "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes]\nx = 7\n";
        assert!(Settings::parse(text).is_ok());
    }

    #[test]
    fn patterns_cover_keys_as_containerd_has_it() {
        let passes = |patterns: &[&str]| {
            let pod_annotations = patterns.iter().map(|p| (*p).to_owned()).collect();
            let runtime = Runtime {
                pod_annotations,
                ..Runtime::default()
            };
            runtime.passes_annotations()
        };
        assert!(passes(&["io.wisp.*"]));
        assert!(passes(&["*"]));
        assert!(passes(&["other", "io.*"]));
        assert!(passes(&["io.wisp.fs.*", "io.wisp.net.*", "io.wisp.http.*"]));
        assert!(!passes(&[]));
        assert!(!passes(&["io.wisp.fs.*"]));
        assert!(!passes(&["io.wisp"]));
        assert!(!passes(&["wisp.*"]));
    }
}
