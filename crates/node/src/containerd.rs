//! The containerd that runs: who listens at its socket, with which program,
//! environment and configuration.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::settings::Settings;

/// Where containerd listens and has its configuration unless it is told
/// otherwise.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
const CONFIG: &str = "/etc/containerd/config.toml";

/// Other places, of distributions that bring their own containerd.
const OTHER_SOCKETS: [&str; 3] = [
    "/run/k3s/containerd/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/k0s/containerd.sock",
];

/// A containerd whose socket takes connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// The gRPC socket.
    pub socket: PathBuf,
    /// The process behind it, as far as it can be seen.
    pub daemon: Option<Daemon>,
}

/// containerd's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its process id.
    pub pid: i32,
    /// Its program, where it was started from.
    pub program: PathBuf,
    /// What it was called: some programs are containerd only by that name.
    pub name: OsString,
    /// Its configuration file; it need not be there.
    pub config: PathBuf,
    /// Where it looks for programs.
    pub search: Option<OsString>,
    /// The file with wisp's settings that its environment names.
    pub settings: Option<PathBuf>,
}

/// Where containerd is most probably: the usual socket, unless it is missing and
/// one of the others is there.
pub fn usual_socket() -> PathBuf {
    let usual = Path::new(SOCKET);
    if usual.exists() {
        return usual.to_owned();
    }
    OTHER_SOCKETS
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .unwrap_or(usual)
        .to_owned()
}

impl Containerd {
    /// Connects to a socket and looks at who listens there.
    ///
    /// # Errors
    /// When nobody does.
    pub fn at(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
        Ok(Self {
            socket: socket.to_owned(),
            // Somebody outside our process namespace has number 0.
            daemon: (peer.pid() > 0).then(|| Daemon::of(peer.pid())).flatten(),
        })
    }
}

impl Daemon {
    /// The process with this number, if we may look at it.
    fn of(pid: i32) -> Option<Self> {
        let proc = Path::new("/proc").join(pid.to_string());
        let program = fs::read_link(proc.join("exe")).ok()?;
        let arguments = strings(&fs::read(proc.join("cmdline")).ok()?);
        let environment = strings(&fs::read(proc.join("environ")).unwrap_or_default());
        let cwd = fs::read_link(proc.join("cwd")).unwrap_or_else(|_| "/".into());
        Some(Self {
            pid,
            program,
            name: arguments.first().cloned().unwrap_or_default(),
            config: cwd.join(config_of(&arguments)),
            search: variable(&environment, "PATH"),
            settings: variable(&environment, "WISP_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        })
    }

    /// The configuration that it has, defaults included.
    ///
    /// It is asked for by running the same program: what it would read now. A
    /// change since its start shows here and not in what it does.
    ///
    /// # Errors
    /// Why it cannot be told, in one line.
    pub fn settings(&self) -> Result<Settings, String> {
        // Also if the file has been replaced, or is in another root.
        let program = format!("/proc/{}/exe", self.pid);
        let mut dump = Command::new(&program);
        dump.arg0(&self.name)
            .arg("--config")
            .arg(&self.config)
            .args(["config", "dump"])
            .stdin(Stdio::null());
        let said = dump
            .output()
            .map_err(|error| format!("run {}: {error}", self.program.display()))?;
        let text = if said.status.success() {
            String::from_utf8_lossy(&said.stdout).into_owned()
        } else {
            // Not every containerd has the command; its file says what differs
            // from the defaults.
            fs::read_to_string(&self.config).map_err(|error| {
                let words = String::from_utf8_lossy(&said.stderr);
                let words = words.lines().last().unwrap_or_default().to_owned();
                format!("`config dump`: {words}; {}: {error}", self.config.display())
            })?
        };
        Settings::parse(&text).map_err(|error| format!("{}: {error}", self.config.display()))
    }
}

/// Strings with a zero byte after each.
fn strings(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|byte| *byte == 0)
        .map(|text| OsStr::from_bytes(text).to_owned())
        .collect()
}

fn variable(environment: &[OsString], name: &str) -> Option<OsString> {
    environment.iter().find_map(|entry| {
        let value = entry.as_bytes().strip_prefix(name.as_bytes())?;
        Some(OsStr::from_bytes(value.strip_prefix(b"=")?).to_owned())
    })
}

/// The configuration file that these arguments name.
fn config_of(arguments: &[OsString]) -> PathBuf {
    let mut arguments = arguments.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        let named = match bytes {
            b"--config" | b"-config" | b"-c" | b"--c" => arguments.next().cloned(),
            _ => [&b"--config="[..], b"-config=", b"-c=", b"--c="]
                .iter()
                .find_map(|prefix| bytes.strip_prefix(*prefix))
                .map(|value| OsStr::from_bytes(value).to_owned()),
        };
        if let Some(named) = named {
            return named.into();
        }
    }
    CONFIG.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> PathBuf {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        config_of(&arguments)
    }

    #[test]
    fn the_configuration_is_what_the_arguments_name() {
        assert_eq!(config("containerd"), Path::new(CONFIG));
        assert_eq!(config("containerd -l debug"), Path::new(CONFIG));
        assert_eq!(config("containerd --config /a.toml"), Path::new("/a.toml"));
        assert_eq!(config("containerd -c /a.toml -l x"), Path::new("/a.toml"));
        assert_eq!(config("containerd --config=/a.toml"), Path::new("/a.toml"));
        assert_eq!(config("containerd --config"), Path::new(CONFIG));
    }

    #[test]
    fn the_environment_is_split_at_zero_bytes() {
        let environment = strings(b"A=1\0PATH=/bin:/sbin\0PATHS=x\0");
        assert_eq!(environment.len(), 3);
        assert_eq!(variable(&environment, "PATH"), Some("/bin:/sbin".into()));
        assert_eq!(variable(&environment, "NONE"), None);
        assert!(strings(b"").is_empty());
    }

    #[test]
    fn who_listens_is_seen() {
        let dir = tempfile::tempdir().expect("dir");
        let socket = dir.path().join("sock");
        assert!(Containerd::at(&socket).is_err());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        let found = Containerd::at(&socket).expect("connect");
        let daemon = found.daemon.expect("it is ourselves");
        assert_eq!(Ok(daemon.pid), i32::try_from(std::process::id()));
        assert_eq!(Some(daemon.program), std::env::current_exe().ok());
    }
}
