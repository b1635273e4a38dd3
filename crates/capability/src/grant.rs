use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use crate::annotation;
use crate::environment;
use crate::error::CapabilityError;
use crate::http::HttpServer;
use crate::interfaces::Interfaces;
use crate::limits::{self, Cap, Limits};
use crate::policy::Policy;
use crate::rules::Rules;

/// The variables that say where an HTTP component listens, first come first
/// served: ours, then those that other runtimes read.
const LISTEN_VARIABLES: [&str; 3] = [
    "WISP_HTTP_LISTEN",
    "WASMTIME_HTTP_PROXY_SOCKET_ADDR",
    "SPIN_HTTP_LISTEN_ADDR",
];

/// Where an HTTP component listens if nothing says otherwise.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// A volume as the container's spec mounts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The path in the container.
    pub destination: String,
    pub read_only: bool,
    /// A single file can be mounted too; that cannot be a preopen.
    pub is_dir: bool,
}

/// What a container asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `process.args`.
    pub args: &'a [String],
    /// `process.env`: `name=value` each.
    pub env: &'a [String],
    /// `process.cwd`.
    pub cwd: &'a str,
    pub annotations: &'a BTreeMap<String, String>,
    pub mounts: &'a [Volume],
    /// `root.readonly`.
    pub root_readonly: bool,
    /// Whether the network namespace is the host's.
    pub host_network: bool,
    /// The container's memory limit in bytes, if it has one.
    pub memory_limit: Option<u64>,
    /// The namespace whose policy holds: Kubernetes', else containerd's.
    pub namespace: &'a str,
    /// The node's.
    pub policy: &'a Policy,
}

/// How the guest sees the image's files at `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootAccess {
    /// It reads them.
    Ro,
    /// It reads and writes them.
    Rw,
    /// It does not see them.
    None,
}

/// How exact the guest's clocks are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clocks {
    /// As exact as the host's.
    #[default]
    Exact,
    /// To the millisecond: too coarse to measure what others do.
    Coarse,
}

/// A directory the guest finds open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preopen {
    /// Its path as the guest sees it.
    pub guest: String,
    /// Whether the guest may try to write. The mounts beneath have their say.
    pub writable: bool,
}

/// Everything a guest gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Never empty; the first is the program.
    pub args: Vec<String>,
    /// Each name once.
    pub env: Vec<(String, String)>,
    /// An absolute path.
    pub cwd: String,
    pub root: RootAccess,
    /// Those of `io.wisp.fs.preopens`, if it is there. Else, with a root: `/`
    /// alone, in which the volumes are mounted, each with its own read-only
    /// flag; without: one for each volume that is a directory.
    pub preopens: Vec<Preopen>,
    /// Whom the guest may call.
    pub outbound: Rules,
    /// Where the guest may listen with sockets of its own.
    pub listen: Rules,
    /// Where the server of an HTTP component listens.
    pub http_listen: SocketAddr,
    /// How that server treats its clients.
    pub http: HttpServer,
    pub host_network: bool,
    /// How much memory it may have.
    pub limits: Limits,
    /// What its program may import.
    pub interfaces: Interfaces,
    /// The values of `wasi:config`.
    pub config: Vec<(String, String)>,
    /// A directory of the container whose files are more of them.
    pub config_dir: Option<String>,
    pub clocks: Clocks,
    /// The seed of its random numbers, which are then the same at each run.
    pub seed: Option<u64>,
}

/// Decides what a guest gets.
///
/// # Errors
/// A request that cannot be understood; it is never granted in part.
pub fn grant(request: &Request<'_>) -> Result<Grant, CapabilityError> {
    let applied = request
        .policy
        .apply(request.annotations, request.namespace)?;
    let annotations = &applied.annotations;
    let args = args(request.args)?;
    let mut env = env(request.env)?;
    let http_listen = http_listen(annotations, &env)?;
    let wrong = |(key, problem)| refused(annotations, key, problem);
    environment::filter(&mut env, annotations).map_err(wrong)?;
    let root = applied.root(root(annotations, request.root_readonly)?)?;
    let outbound = rules(annotations, annotation::NET_OUTBOUND)?;
    let listen = rules(annotations, annotation::NET_LISTEN)?;
    if let Some(name) = listen.first_name() {
        return Err(refused(
            annotations,
            annotation::NET_LISTEN,
            format!("{name:?} is a name: a socket listens on an address, give that or \"*\""),
        ));
    }
    applied.network(&outbound, &listen)?;
    let mut limits = Limits {
        container: request.memory_limit,
        memory: cap(annotations, annotation::MEMORY_MAX)?,
        instance: cap(annotations, annotation::MEMORY_INSTANCE_MAX)?,
    };
    applied.limits(&mut limits);
    let mut interfaces = Interfaces::parse(annotations).map_err(wrong)?;
    applied.interfaces(&mut interfaces);
    Ok(Grant {
        http_listen,
        http: HttpServer::parse(annotations).map_err(wrong)?,
        args,
        env,
        cwd: cwd(request.cwd)?,
        root,
        preopens: preopens(annotations, root, request.mounts)?,
        outbound,
        listen,
        host_network: request.host_network,
        limits,
        interfaces,
        config: config(annotations),
        config_dir: config_dir(annotations, root, request.mounts)?,
        clocks: clocks(annotations)?,
        seed: seed(annotations)?,
    })
}

fn config(annotations: &BTreeMap<String, String>) -> Vec<(String, String)> {
    annotations
        .iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix(annotation::CONFIG)?;
            Some((name.to_owned(), value.clone()))
        })
        .collect()
}

fn config_dir(
    annotations: &BTreeMap<String, String>,
    root: RootAccess,
    mounts: &[Volume],
) -> Result<Option<String>, CapabilityError> {
    let key = annotation::CONFIG_DIR;
    let Some(path) = annotations.get(key).map(|path| path.trim()) else {
        return Ok(None);
    };
    check_place(path, root, mounts).map_err(|problem| refused(annotations, key, problem))?;
    Ok(Some(path.to_owned()))
}

fn clocks(annotations: &BTreeMap<String, String>) -> Result<Clocks, CapabilityError> {
    let key = annotation::CLOCKS;
    match annotations.get(key).map(|value| value.trim()) {
        None | Some("exact") => Ok(Clocks::Exact),
        Some("coarse") => Ok(Clocks::Coarse),
        Some(_) => Err(refused(annotations, key, "must be exact or coarse".into())),
    }
}

fn seed(annotations: &BTreeMap<String, String>) -> Result<Option<u64>, CapabilityError> {
    let key = annotation::RANDOM;
    let problem = || refused(annotations, key, "must be host or seed:NUMBER".into());
    match annotations.get(key).map(|value| value.trim()) {
        None | Some("host") => Ok(None),
        Some(value) => value
            .strip_prefix("seed:")
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.parse().ok())
            .map(Some)
            .ok_or_else(problem),
    }
}

fn cap(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<Cap>, CapabilityError> {
    limits::annotated(annotations.get(key).map(String::as_str), key)
        .map_err(|problem| refused(annotations, key, problem))
}

fn args(args: &[String]) -> Result<Vec<String>, CapabilityError> {
    if args.is_empty() {
        return Err(CapabilityError::NoArgs);
    }
    for arg in args {
        no_nul("args", arg)?;
    }
    Ok(args.to_vec())
}

fn env(entries: &[String]) -> Result<Vec<(String, String)>, CapabilityError> {
    let mut env: Vec<(String, String)> = Vec::with_capacity(entries.len());
    for entry in entries {
        no_nul("env", entry)?;
        let (name, value) = entry
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| CapabilityError::Process {
                field: "env",
                value: entry.clone(),
                problem: "is not of the form name=value",
            })?;
        // The last one counts, as it does for native programs.
        env.retain(|(known, _)| known != name);
        env.push((name.into(), value.into()));
    }
    Ok(env)
}

fn cwd(cwd: &str) -> Result<String, CapabilityError> {
    no_nul("cwd", cwd)?;
    match cwd {
        "" => Ok("/".into()),
        absolute if absolute.starts_with('/') => Ok(absolute.into()),
        relative => Err(CapabilityError::Process {
            field: "cwd",
            value: relative.into(),
            problem: "is not an absolute path",
        }),
    }
}

fn no_nul(field: &'static str, value: &str) -> Result<(), CapabilityError> {
    if value.contains('\0') {
        return Err(CapabilityError::Process {
            field,
            value: value.into(),
            problem: "contains a NUL character",
        });
    }
    Ok(())
}

fn root(
    annotations: &BTreeMap<String, String>,
    readonly: bool,
) -> Result<RootAccess, CapabilityError> {
    let key = annotation::FS_ROOT;
    match annotations.get(key).map(|value| value.trim()) {
        None | Some("ro") => Ok(RootAccess::Ro),
        // Both the annotation and the container's own spec must grant it.
        Some("rw") if readonly => Ok(RootAccess::Ro),
        Some("rw") => Ok(RootAccess::Rw),
        Some("none") => Ok(RootAccess::None),
        Some(_) => Err(refused(annotations, key, "must be ro, rw or none".into())),
    }
}

fn preopens(
    annotations: &BTreeMap<String, String>,
    root: RootAccess,
    mounts: &[Volume],
) -> Result<Vec<Preopen>, CapabilityError> {
    if let Some(text) = annotations.get(annotation::FS_PREOPENS) {
        return chosen(text, root, mounts)
            .map_err(|problem| refused(annotations, annotation::FS_PREOPENS, problem));
    }
    Ok(match root {
        RootAccess::Ro | RootAccess::Rw => vec![Preopen {
            guest: "/".into(),
            writable: true,
        }],
        RootAccess::None => mounts
            .iter()
            .filter(|volume| volume.is_dir)
            .map(|volume| Preopen {
                guest: volume.destination.clone(),
                writable: !volume.read_only,
            })
            .collect(),
    })
}

/// The directories of a list. Without a root, they must be within volumes.
fn chosen(text: &str, root: RootAccess, mounts: &[Volume]) -> Result<Vec<Preopen>, String> {
    let mut found: Vec<Preopen> = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (path, writable) = match item.rsplit_once(':') {
            Some((path, "ro")) => (path, false),
            Some((path, "rw")) => (path, true),
            Some((_, mode)) => {
                return Err(format!("{item:?}: {mode:?} is neither ro nor rw"));
            }
            None => (item, true),
        };
        check_place(path, root, mounts)?;
        if found.iter().any(|preopen| preopen.guest == path) {
            return Err(format!("{path:?} stands twice"));
        }
        found.push(Preopen {
            guest: path.to_owned(),
            writable,
        });
    }
    Ok(found)
}

/// Whether `path` is a plain path, and, without a root, within a volume.
fn check_place(path: &str, root: RootAccess, mounts: &[Volume]) -> Result<(), String> {
    let plain = path.starts_with('/')
        && (path == "/"
            || path[1..]
                .split('/')
                .all(|part| !matches!(part, "" | "." | "..")));
    if !plain || path.contains('\0') {
        return Err(format!(
            "{path:?} is not an absolute path without empty parts, \".\" and \"..\""
        ));
    }
    let within = |volume: &Volume| {
        volume.is_dir
            && path
                .strip_prefix(volume.destination.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if root == RootAccess::None && !mounts.iter().any(within) {
        return Err(format!(
            "{path:?} is not in a volume, and {} leaves nothing else",
            annotation::FS_ROOT
        ));
    }
    Ok(())
}

fn rules(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Rules, CapabilityError> {
    let text = annotations.get(key).map_or("", String::as_str);
    Rules::parse(text).map_err(|problem| refused(annotations, key, problem))
}

fn refused(
    annotations: &BTreeMap<String, String>,
    key: &'static str,
    problem: String,
) -> CapabilityError {
    CapabilityError::Annotation {
        key,
        value: annotations.get(key).cloned().unwrap_or_default(),
        problem,
    }
}

fn http_listen(
    annotations: &BTreeMap<String, String>,
    env: &[(String, String)],
) -> Result<SocketAddr, CapabilityError> {
    const PROBLEM: &str = "is not address:port, such as 0.0.0.0:8080 or [::]:8080";
    if let Some(value) = annotations.get(annotation::HTTP_LISTEN) {
        return value
            .trim()
            .parse()
            .map_err(|_| refused(annotations, annotation::HTTP_LISTEN, PROBLEM.into()));
    }
    for name in LISTEN_VARIABLES {
        if let Some((_, value)) = env.iter().find(|(known, _)| known == name) {
            return value.trim().parse().map_err(|_| CapabilityError::Variable {
                name,
                value: value.clone(),
                problem: PROBLEM.into(),
            });
        }
    }
    Ok(DEFAULT_LISTEN)
}

#[cfg(test)]
#[path = "grant_tests.rs"]
mod tests;
