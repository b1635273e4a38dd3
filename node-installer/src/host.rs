//! The node below the pod: `wisp node`, with the node's root as its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use wisp_install::record::Record;

use crate::args::Run;
use crate::say;

/// How long one `wisp node` may take: two restarts of containerd, and a
/// compilation. Whatever it is killed at, the next one goes on.
const PATIENCE: Duration = Duration::from_secs(900);
/// Where the node's own programs are; a pod's environment says nothing of that.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `wisp node install` did.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Installed {
    /// The version that is there now.
    pub version: String,
    /// containerd's.
    pub containerd: String,
    /// The file that tells containerd.
    pub file: PathBuf,
    /// Whether that changed.
    pub configured: bool,
    /// The shim that containerd runs.
    pub shim: PathBuf,
}

/// What `wisp node status` found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// What was written down.
    pub installed: Option<Record>,
    /// The shim that pods get.
    pub shim: Option<PathBuf>,
    /// The processes that run it.
    pub processes: Vec<i32>,
}

impl Found {
    /// Whether this is what `installed` left.
    pub fn is_still(&self, installed: &Installed) -> bool {
        let proven = self
            .installed
            .as_ref()
            .is_some_and(|record| record.proven && record.version == installed.version);
        proven && self.shim.as_ref() == Some(&installed.shim)
    }
}

/// The node's root directory, and what `wisp node` is told of it.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    /// The programs' directory, as the pod has it.
    from: PathBuf,
    common: Vec<OsString>,
    programs: Option<PathBuf>,
}

impl Host {
    /// As the arguments say.
    ///
    /// # Errors
    /// A root or programs that are not there.
    pub fn new(args: &Run) -> Result<Self> {
        ensure!(
            args.host.join("etc").is_dir(),
            "{} is no node's root directory: mount / of the node there, or name it with --host",
            args.host.display()
        );
        let from = match &args.from {
            Some(from) => from.clone(),
            None => {
                let own = std::env::current_exe().context("find this program itself")?;
                own.parent().unwrap_or(Path::new("/")).to_owned()
            }
        };
        for program in [wisp_install::CLI, wisp_install::SHIM] {
            ensure!(
                from.join(program).is_file(),
                "{} is missing: name the directory of the programs with --from",
                from.join(program).display()
            );
        }
        let mut common = Vec::new();
        let mut option = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                common.extend([OsString::from(name), value]);
            }
        };
        let there = &args.there;
        option("--address", there.address.clone().map(Into::into));
        option("--restart", there.restart.clone().map(Into::into));
        option("--state", there.state.clone().map(Into::into));
        Ok(Self {
            root: args.host.clone(),
            from,
            common,
            programs: there.programs.clone(),
        })
    }

    /// Installs, or proves that what is there works.
    ///
    /// # Errors
    /// Why not, in one line.
    pub async fn install(&self) -> Result<Installed, String> {
        let mut more = vec!["--json".into(), "--from".into(), self.seen_from_node("")];
        if let Some(programs) = &self.programs {
            more.extend(["--programs".into(), programs.into()]);
        }
        self.json("install", more).await
    }

    /// Looks.
    ///
    /// # Errors
    /// Why that cannot be told, in one line.
    pub async fn status(&self) -> Result<Found, String> {
        self.json("status", vec!["--json".into()]).await
    }

    /// Proves once more that what is there works.
    pub async fn works(&self) -> bool {
        self.wisp("verify", Vec::new()).await.is_ok()
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// Why not, in one line.
    pub async fn uninstall(&self) -> Result<(), String> {
        self.wisp("uninstall", Vec::new()).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        action: &str,
        more: Vec<OsString>,
    ) -> Result<T, String> {
        let said = self.wisp(action, more).await?;
        serde_json::from_slice(&said).map_err(|error| {
            format!(
                "`wisp node {action}` answered {:?}: {error}",
                String::from_utf8_lossy(&said)
            )
        })
    }

    /// A file of this pod, by a name that leads there from the node's root.
    fn seen_from_node(&self, name: &str) -> OsString {
        let mut path = OsString::from(format!("/proc/{}/root", std::process::id()));
        path.push(self.from.join(name));
        path
    }

    /// Runs `wisp node ACTION`; answers what it printed.
    async fn wisp(&self, action: &str, more: Vec<OsString>) -> Result<Vec<u8>, String> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("enter")
            .arg(&self.root)
            .arg("--")
            .arg(self.seen_from_node(wisp_install::CLI))
            .args(["node", action])
            .args(&self.common)
            .args(more)
            .env_clear()
            .env("PATH", PATH)
            // The node's systemd is meant, though the root is another mount of it.
            .env("SYSTEMD_IGNORE_CHROOT", "1")
            // Ctrl-C is for this program, which lets it come to an end.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("run `wisp node {action}`: {error}"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let mut answer = Vec::new();
            let read = async {
                if let Some(mut stdout) = stdout {
                    let _ = stdout.read_to_end(&mut answer).await;
                }
            };
            let heard = async {
                let mut complaint = String::new();
                let Some(stderr) = stderr else {
                    return complaint;
                };
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    say(&line);
                    if !line.starts_with("==>") {
                        complaint = line;
                    }
                }
                complaint
            };
            let ((), complaint, ended) = tokio::join!(read, heard, child.wait());
            (answer, complaint, ended)
        };
        let Ok((answer, complaint, ended)) = tokio::time::timeout(PATIENCE, work).await else {
            let _ = child.kill().await;
            return Err(format!(
                "`wisp node {action}` did not end within {} s",
                PATIENCE.as_secs()
            ));
        };
        match ended {
            Ok(status) if status.success() => Ok(answer),
            Ok(status) if complaint.is_empty() => {
                Err(format!("`wisp node {action}` ended with {status}"))
            }
            Ok(_) => Err(complaint
                .strip_prefix("wisp: ")
                .unwrap_or(&complaint)
                .to_owned()),
            Err(error) => Err(format!("wait for `wisp node {action}`: {error}")),
        }
    }
}
