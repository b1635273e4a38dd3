use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use crate::annotation;
use crate::error::CapabilityError;
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
    /// With a root: `/` alone, in which the volumes are mounted, each with its
    /// own read-only flag. Without: one for each volume that is a directory.
    pub preopens: Vec<Preopen>,
    /// Whom the guest may call.
    pub outbound: Rules,
    /// Where the guest may listen with sockets of its own.
    pub listen: Rules,
    /// Where the server of an HTTP component listens.
    pub http_listen: SocketAddr,
    pub host_network: bool,
}

/// Decides what a guest gets.
///
/// # Errors
/// A request that cannot be understood; it is never granted in part.
pub fn grant(request: &Request<'_>) -> Result<Grant, CapabilityError> {
    for key in request.annotations.keys() {
        if key.starts_with(annotation::PREFIX) && !annotation::ALL.contains(&key.as_str()) {
            return Err(CapabilityError::UnknownAnnotation { key: key.clone() });
        }
    }
    let args = args(request.args)?;
    let env = env(request.env)?;
    let root = root(request)?;
    let outbound = rules(request.annotations, annotation::NET_OUTBOUND)?;
    let listen = rules(request.annotations, annotation::NET_LISTEN)?;
    if let Some(name) = listen.first_name() {
        return Err(refused(
            request.annotations,
            annotation::NET_LISTEN,
            format!("{name:?} is a name: a socket listens on an address, give that or \"*\""),
        ));
    }
    Ok(Grant {
        http_listen: http_listen(request.annotations, &env)?,
        args,
        env,
        cwd: cwd(request.cwd)?,
        root,
        preopens: preopens(root, request.mounts),
        outbound,
        listen,
        host_network: request.host_network,
    })
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

fn root(request: &Request<'_>) -> Result<RootAccess, CapabilityError> {
    let key = annotation::FS_ROOT;
    match request.annotations.get(key).map(|value| value.trim()) {
        None | Some("ro") => Ok(RootAccess::Ro),
        // Both the annotation and the container's own spec must grant it.
        Some("rw") if request.root_readonly => Ok(RootAccess::Ro),
        Some("rw") => Ok(RootAccess::Rw),
        Some("none") => Ok(RootAccess::None),
        Some(_) => Err(refused(
            request.annotations,
            key,
            "must be ro, rw or none".into(),
        )),
    }
}

fn preopens(root: RootAccess, mounts: &[Volume]) -> Vec<Preopen> {
    match root {
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
    }
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
