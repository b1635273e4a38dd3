//! Node settings: the file `/etc/wisp/config.toml`.
//!
//! ```toml
//! [cache]
//! dir = "/var/lib/wisp/aot"
//! run_dir = "/run/wisp/aot"
//! max_size_mib = 2048
//! other_versions_days = 7
//!
//! [compiler]
//! path = "/usr/local/bin/wisp"
//! timeout_seconds = 120
//! memory_mib = 2048
//! threads = 4
//! max_program_mib = 64
//! max_code_mib = 512
//!
//! [policy]
//! profile = "default"
//! profiles = ["strict", "default", "batch"]
//! annotations = ["io.wisp.profile", "io.wisp.net.*"]
//!
//! [policy.ceiling]
//! fs_root = "ro"
//! net_outbound = "https://*.example.com"
//! memory_max = "512Mi"
//!
//! [policy.namespaces.team-a]
//! profile = "strict"
//!
//! [profiles.batch.annotations]
//! "io.wisp.fs.root" = "rw"
//! ```
#![forbid(unsafe_code)]

mod compiler;
mod policy;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use compiler::Compiler;
pub use policy::{OwnProfile, Policy};

/// Where the settings are when nothing names another file.
pub const DEFAULT_PATH: &str = "/etc/wisp/config.toml";

/// The variable that names another settings file.
pub const PATH_VARIABLE: &str = "WISP_CONFIG";

/// All settings of a node. What the file leaves out has its default; what this
/// version does not know is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub cache: Cache,
    pub compiler: Compiler,
    policy: Policy,
    profiles: BTreeMap<String, OwnProfile>,
}

/// Where compiled programs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// An absolute path. The directory is made when it is first needed.
    pub dir: PathBuf,
    /// An absolute path: what is known of files until the next boot. A tmpfs is
    /// the place for it. The directory is made when it is first needed.
    pub run_dir: PathBuf,
    /// How large the directory may grow, in MiB; 0 is without bound.
    pub max_size_mib: u64,
    /// After how many days without use a program's code that another version
    /// of wisp or another processor needs is removed, in days.
    pub other_versions_days: u64,
}

impl Cache {
    /// [`Self::max_size_mib`] in bytes, `None` without bound.
    pub fn max_size(&self) -> Option<u64> {
        match self.max_size_mib {
            0 => None,
            mib => Some(mib.saturating_mul(1 << 20)),
        }
    }

    /// [`Self::other_versions_days`] as a duration.
    pub fn other_versions(&self) -> Duration {
        Duration::from_secs(self.other_versions_days.saturating_mul(24 * 60 * 60))
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            dir: "/var/lib/wisp/aot".into(),
            run_dir: "/run/wisp/aot".into(),
            max_size_mib: 2048,
            other_versions_days: 7,
        }
    }
}

/// Why the settings cannot be used. Each names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read settings {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("settings {}: {message}", path.display())]
    Malformed { path: PathBuf, message: String },
    #[error("settings {}: line {line}: {field}: {problem}", path.display())]
    Value {
        path: PathBuf,
        line: usize,
        field: String,
        problem: String,
    },
}

/// A settings file as it was at some time: what a container was made by holds for
/// all that joins it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    path: PathBuf,
    text: String,
}

impl Text {
    /// Reads the file that [`Config::load`] reads; `None` if there is none and
    /// need not be.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(explicit: Option<&Path>) -> Result<Option<Self>, ConfigError> {
        let named = std::env::var_os(PATH_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        let chosen = explicit.or(named.as_deref());
        let path = chosen.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self {
                path: path.into(),
                text,
            })),
            Err(source) if source.kind() == io::ErrorKind::NotFound && chosen.is_none() => Ok(None),
            Err(source) => Err(ConfigError::Read {
                path: path.into(),
                source,
            }),
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// A text that cannot be understood, with the file and the line.
    pub fn parse(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.path, &self.text)
    }
}

impl Config {
    /// Reads the settings from `explicit`, else from the file that
    /// `$WISP_CONFIG` names, else from [`DEFAULT_PATH`].
    ///
    /// # Errors
    /// A file that cannot be read or understood. Only the default one may be
    /// missing: then everything has its default.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        Text::load(explicit)?.map_or_else(|| Ok(Self::default()), |text| text.parse())
    }

    /// Reads the settings from `text`, which stands in the file `path`.
    ///
    /// # Errors
    /// A text that cannot be understood, with the line.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let line_at = |at: usize| Some(text.get(..at)?.matches('\n').count() + 1);
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().and_then(|span| line_at(span.start));
            let problem = error.message().trim().replace('\n', "; ");
            ConfigError::Malformed {
                path: path.into(),
                message: match line {
                    Some(line) => format!("line {line}: {problem}"),
                    None => problem,
                },
            }
        })?;
        match config.check() {
            Ok(()) => Ok(config),
            Err(Wrong { field, problem, at }) => Err(ConfigError::Value {
                path: path.into(),
                line: at
                    .and_then(line_at)
                    .unwrap_or_else(|| line_of(text, &field)),
                field,
                problem,
            }),
        }
    }

    fn check(&self) -> Result<(), Wrong> {
        absolute("cache.dir", &self.cache.dir)
            .and_then(|()| absolute("cache.run_dir", &self.cache.run_dir))
            .and_then(|()| self.compiler.check())
            .map_err(|(field, problem)| Wrong {
                field: field.to_owned(),
                problem,
                at: None,
            })?;
        self.policy.check(&self.profiles)
    }

    /// What pods may ask for.
    pub fn policy(&self) -> wisp_capability::Policy {
        self.policy.value(&self.profiles)
    }
}

/// A value that the file's form allows and that makes no sense.
struct Wrong {
    field: String,
    problem: String,
    /// Where it stands, in bytes, if that is known.
    at: Option<usize>,
}

/// The line, counted from one, of the first setting that has the last part of
/// `field` as its name. A value of it is wrong, so there is one.
fn line_of(text: &str, field: &str) -> usize {
    let name = field.rsplit('.').next().unwrap_or(field);
    text.lines()
        .position(|line| {
            let rest = line.trim_start().strip_prefix(name);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        })
        .map_or(1, |line| line + 1)
}

fn absolute(field: &'static str, value: &Path) -> Result<(), (&'static str, String)> {
    if value.is_absolute() {
        return Ok(());
    }
    Err((
        field,
        format!("{:?} must be an absolute path", value.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/x.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(parse("[cache]\n[compiler]\n"), Ok(Config::default()));
    }

    #[test]
    fn what_the_file_says_counts() {
        let config = parse("[cache]\ndir = \"/c\"\n[compiler]\npath = \"/w\"\ntimeout_seconds = 5")
            .expect("valid");
        assert_eq!(config.cache.dir, Path::new("/c"));
        assert_eq!(config.compiler.path.as_deref(), Some(Path::new("/w")));
        assert_eq!(config.compiler.timeout(), Duration::from_secs(5));
        let config = parse(
            "[compiler]\nmemory_mib = 100\nthreads = 3\nmax_program_mib = 4\nmax_code_mib = 5",
        )
        .expect("valid")
        .compiler;
        assert_eq!((config.memory_mib, config.threads), (100, Some(3)));
        assert_eq!((config.max_program_mib, config.max_code_mib), (4, 5));
    }

    #[test]
    fn the_cache_has_bounds() {
        let cache = Config::default().cache;
        assert_eq!(cache.max_size(), Some(2 << 30));
        let text = "[cache]\nrun_dir = \"/r\"\nmax_size_mib = 3\nother_versions_days = 2";
        let cache = parse(text).expect("valid").cache;
        assert_eq!(cache.run_dir, Path::new("/r"));
        assert_eq!(cache.max_size(), Some(3 << 20));
        assert_eq!(cache.other_versions(), Duration::from_secs(2 * 86_400));
        let cache = parse("[cache]\nmax_size_mib = 0").expect("valid").cache;
        assert_eq!(cache.max_size(), None);
        // Toml has no larger number; nothing overflows.
        let cache = parse("[cache]\nmax_size_mib = 9223372036854775807").expect("valid");
        assert_eq!(cache.cache.max_size(), Some(u64::MAX));
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        for (text, expected) in [
            ("[cache]\ndirr = \"/c\"", "line 2"),
            ("[cache]\ndirr = \"/c\"", "dirr"),
            ("\n\n[nonsense]", "line 3"),
            ("[cache", "line 1"),
            ("[compiler]\ntimeout_seconds = \"x\"", "line 2"),
            ("[cache]\ndir = \"relative\"", "cache.dir"),
            ("[cache]\nrun_dir = \"run\"", "cache.run_dir"),
            ("[cache]\nmax_size_mib = -1", "line 2"),
            ("[cache]\nother_versions_days = 1.5", "line 2"),
            ("[compiler]\npath = \"wisp\"", "compiler.path"),
            (
                "[compiler]\ntimeout_seconds = 0",
                "compiler.timeout_seconds",
            ),
            ("[compiler]\nmemory_mib = 1", "compiler.memory_mib"),
            ("[compiler]\nmemory_mib = -1", "line 2"),
            ("[compiler]\nthreads = 0", "line 2: compiler.threads"),
            (
                "[policy]\nprofile = \"none\"",
                "line 2: policy.profile: \"none\"",
            ),
            ("[policy]\n\nprofiles = [\"a\"]", "line 3: policy.profiles"),
            (
                "[policy]\nprofiles = [\n\"strict\",\n\"a\"]",
                "line 4: policy.profiles",
            ),
            (
                "[policy]\nprofile = \"open\"\n[policy.namespaces.a]\nprofile = \"b\"",
                "line 4: policy.namespaces.a.profile: \"b\"",
            ),
            ("[policy]\nannotations = [\"io.wisp.x\"]", "line 2"),
            ("[policy]\nannotations = [\"io.wisp.x*\"]", "io.wisp.x*"),
            ("[policy.ceiling]\nfs_root = \"yes\"", "line 2"),
            ("[policy.ceiling]\nnet_outbound = \"ftp://a\"", "line 2"),
            ("[policy.ceiling]\nnet_outbound = \"ftp://a\"", "ftp"),
            ("[policy.ceiling]\nmemory_max = \"much\"", "line 2"),
            ("[policy.ceiling]\nmemory_max = 5", "line 2"),
            ("[policy.ceiling]\ninterfaces_deny = [\"x\"]", "line 2"),
            ("[policy.ceiling]\nfs = \"ro\"", "line 2"),
            (
                "[profiles.a.annotations]\n\"io.wisp.x\" = \"y\"",
                "io.wisp.x",
            ),
            (
                "[profiles.a.annotations]\n\"io.wisp.fs.root\" = \"y\"",
                "ro, rw or none",
            ),
            (
                "[profiles.a.annotations]\n\"io.wisp.profile\" = \"open\"",
                "io.wisp.profile",
            ),
            ("[profiles.a]\nceilings = 1", "line 2"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with("settings /etc/x.toml: "), "{error}");
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_policy_is_what_the_file_says() {
        assert_eq!(
            parse("").expect("valid").policy(),
            wisp_capability::Policy::default()
        );
        let text = r#"
            [policy]
            profile = "batch"
            profiles = ["strict", "batch"]
            annotations = ["io.wisp.net.*", "io.wisp.config.*", "io.wisp.profile"]
            [policy.ceiling]
            fs_root = "ro"
            net_outbound = "https://*.example.com"
            memory_max = "64Mi"
            interfaces_deny = ["wasi:sockets"]
            [policy.namespaces.team-a]
            profile = "strict"
            [policy.namespaces.team-a.ceiling]
            net_listen = ""
            [profiles.batch.annotations]
            "io.wisp.fs.root" = "ro"
            [profiles.batch.ceiling]
            memory_instance_max = "1Mi"
        "#;
        let policy = parse(text).expect("valid").policy();
        assert_eq!(policy.node.profile.as_deref(), Some("batch"));
        assert_eq!(policy.node.ceiling.memory_max, Some(64 << 20));
        assert_eq!(policy.node.ceiling.interfaces_deny, ["wasi:sockets"]);
        let own = &policy.namespaces["team-a"];
        assert_eq!(own.profile.as_deref(), Some("strict"));
        let none = own.ceiling.net_listen.as_ref();
        assert!(none.is_some_and(wisp_capability::Rules::is_empty));
        let batch = &policy.profiles["batch"];
        assert_eq!(batch.annotations["io.wisp.fs.root"], "ro");
        assert_eq!(batch.ceiling.memory_instance_max, Some(1 << 20));
    }

    #[test]
    fn a_named_file_must_exist() {
        let dir = tempfile::tempdir().expect("dir");
        let missing = dir.path().join("none.toml");
        let error = Config::load(Some(&missing)).expect_err("missing");
        assert!(error.to_string().contains("none.toml"), "{error}");
        let present = dir.path().join("some.toml");
        std::fs::write(&present, "[cache]\ndir = \"/here\"").expect("write");
        let config = Config::load(Some(&present)).expect("valid");
        assert_eq!(config.cache.dir, Path::new("/here"));
    }
}
