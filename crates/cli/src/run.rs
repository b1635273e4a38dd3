//! `wisp run`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::Args;
use wisp_aot::{Artifact, Cache, Digest};
use wisp_capability::{Grant, Policy, Request, Volume, annotation};
use wisp_config::Config;
use wisp_engine::ledger::Ledger;
use wisp_engine::{CpuLimit, EngineError, HostPreopen, Prepared, Setup, World};

use crate::pack::pair;

/// The exit code when no guest was started; the guest's own codes are those of
/// the guest.
pub const NOT_STARTED: u8 = 125;

const EXAMPLES: &str = "\
Examples:
  wisp run app.wasm -- --verbose input.txt
  wisp run --dir ./data:/data:ro --env MODE=test app.wasm
  wisp run --listen 127.0.0.1:8080 server.wasm
  wisp run --annotation io.wisp.net.outbound=https://api.example.com app.wasm

The program's exit code is wisp's; 134 is a trap, 125 a program that was not
started. Compiled code is kept in the node's cache (see /etc/wisp/config.toml)
where that can be written.";

/// Run a Wasm program as a container would, without containerd
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// The program: a component or core module
    #[arg(value_name = "FILE")]
    program: PathBuf,
    /// Give the program a directory, at GUEST or else at its own path under /,
    /// to read and write or only to read; again for more
    #[arg(long, value_name = "HOST[:GUEST][:ro|rw]")]
    dir: Vec<Dir>,
    /// Set a variable in the program's environment, which is empty otherwise;
    /// again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Where an HTTP component listens, by default 0.0.0.0:8080
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Grant what a pod's annotation would; again for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// The program's arguments
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// A directory of the host and where the guest finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dir {
    host: PathBuf,
    guest: String,
    writable: bool,
}

impl Run {
    /// Runs the program to its end and gives its exit code.
    ///
    /// # Errors
    /// Whatever keeps it from being started.
    pub fn run(self) -> Result<i32> {
        for dir in &self.dir {
            let is_dir = std::fs::metadata(&dir.host)
                .with_context(|| format!("--dir {}", dir.host.display()))?
                .is_dir();
            if !is_dir {
                bail!("--dir {}: is not a directory", dir.host.display());
            }
        }
        let config = Config::load(None)?;
        let policy = config.policy();
        let grant = self.grant(&policy)?;
        // The artifact stays open to the end: that says it is in use.
        let (prepared, _in_use) = self.prepare(&config, &grant)?;
        let is_server = matches!(prepared.world(), World::Http(_));
        let address = grant.http_listen;
        let config_dir = grant
            .config_dir
            .as_deref()
            .and_then(|path| self.on_host(path));
        let preopens = self
            .dir
            .into_iter()
            .map(|dir| HostPreopen {
                host: dir.host,
                guest: dir.guest,
                writable: dir.writable,
            })
            .collect();
        Ok(prepared.run(Setup {
            grant,
            preopens,
            memory_limit: None,
            ledger: Ledger::own(),
            cpu_limit: CpuLimit::default(),
            config: config_dir,
            ready: Box::new(move |started| match started {
                Ok(()) if is_server => eprintln!("wisp: listening on http://{address}"),
                Ok(()) => {}
                Err(reason) => eprintln!("wisp: {reason}"),
            }),
        }))
    }

    /// Where the program's `path` is on the host, if in one of its directories.
    fn on_host(&self, path: &str) -> Option<PathBuf> {
        let path = Path::new(path);
        self.dir
            .iter()
            .filter_map(|dir| {
                let rest = path.strip_prefix(&dir.guest).ok()?;
                Some((dir.guest.len(), dir.host.join(rest)))
            })
            .max_by_key(|(length, _)| *length)
            .map(|(_, host)| host)
    }

    /// What the program may do, decided as for a container on the host's
    /// network that has no root file system but these volumes.
    fn grant(&self, policy: &Policy) -> Result<Grant> {
        let mut annotations = BTreeMap::new();
        for (name, value) in &self.annotation {
            if name == annotation::FS_ROOT && value != "none" {
                bail!("--annotation {name}: there is no image here; give directories with --dir");
            }
            if name == annotation::FS_PREOPENS {
                bail!("--annotation {name}: give directories with --dir");
            }
            if annotations.insert(name.clone(), value.clone()).is_some() {
                bail!("--annotation {name}: stands twice");
            }
        }
        annotations.insert(annotation::FS_ROOT.into(), "none".into());
        if let Some(listen) = &self.listen {
            let twice = annotations.insert(annotation::HTTP_LISTEN.into(), listen.clone());
            if twice.is_some() {
                bail!(
                    "--listen and --annotation {}: give one",
                    annotation::HTTP_LISTEN
                );
            }
        }
        let mut args = vec![self.program.display().to_string()];
        args.extend_from_slice(&self.args);
        let env: Vec<String> = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mounts: Vec<Volume> = self
            .dir
            .iter()
            .map(|dir| Volume {
                destination: dir.guest.clone(),
                read_only: !dir.writable,
                is_dir: true,
            })
            .collect();
        let mut granted = wisp_capability::grant(&Request {
            args: &args,
            env: &env,
            cwd: "/",
            annotations: &annotations,
            mounts: &mounts,
            root_readonly: false,
            host_network: true,
            memory_limit: None,
            namespace: "",
            policy,
        })?;
        if !granted.outbound.is_empty() {
            let addresses = wisp_engine::node_addresses().context("list this node's addresses")?;
            granted.outbound.set_node(&addresses);
        }
        Ok(granted)
    }

    /// Maps and links the program's code; what the engine refuses of what was
    /// kept is made again, once.
    fn prepare(&self, config: &Config, grant: &Grant) -> Result<(Prepared, Artifact)> {
        let name = || self.program.display().to_string();
        let mut file = File::open(&self.program).with_context(name)?;
        if !file.metadata().with_context(name)?.is_file() {
            bail!("{}: is not a file", name());
        }
        let digest = Digest::of(&mut file).with_context(name)?;
        let mut open = || {
            let mut again = file.try_clone()?;
            again.rewind()?;
            Ok(Box::new(again) as Box<dyn Read>)
        };
        let cache = Cache::from_config(config);
        let compiler = crate::compiler(config)?;
        let map = |artifact: &Artifact| -> Result<_> {
            if let Some(warning) = &artifact.warning {
                eprintln!("wisp: {warning}");
            }
            Ok(wisp_engine::prepare(artifact.file.try_clone()?, grant))
        };
        let mut artifact = cache
            .load(&digest, &mut open, &compiler)
            .with_context(name)?;
        let mut prepared = map(&artifact)?;
        if let Err(EngineError::Artifact(reason)) = &prepared
            && artifact.cached
        {
            eprintln!("wisp: compiled code is refused and made again: {reason}");
            artifact = cache
                .replace(&artifact, &digest, &mut open, &compiler)
                .with_context(name)?;
            prepared = map(&artifact)?;
        }
        Ok((prepared.with_context(name)?, artifact))
    }
}

impl FromStr for Dir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (paths, writable) = match text.rsplit_once(':') {
            Some((paths, "ro")) => (paths, false),
            Some((paths, "rw")) => (paths, true),
            _ => (text, true),
        };
        let (host, guest) = match paths.rsplit_once(':') {
            Some((host, guest)) => (host, guest.to_owned()),
            None => (paths, own_path(Path::new(paths))?),
        };
        if host.is_empty() {
            return Err("write HOST:GUEST, then :ro or :rw".into());
        }
        if !guest.starts_with('/') || guest.split('/').any(|part| part == "..") {
            return Err(format!(
                "{guest:?} must be an absolute path without .., as the program sees it; after it \
                 comes ro or rw"
            ));
        }
        Ok(Self {
            host: host.into(),
            guest,
            writable,
        })
    }
}

/// Where a directory is for the guest if nobody says so: `./data` at `/data`.
fn own_path(host: &Path) -> Result<String, String> {
    let mut guest = String::new();
    for part in host.components() {
        match part {
            Component::Normal(part) => {
                guest.push('/');
                guest.push_str(part.to_str().ok_or("the path is not valid UTF-8")?);
            }
            Component::ParentDir => {
                return Err("say where the program finds it: HOST:GUEST".into());
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(if guest.is_empty() { "/".into() } else { guest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(host: &str, guest: &str, writable: bool) -> Result<Dir, String> {
        Ok(Dir {
            host: host.into(),
            guest: guest.into(),
            writable,
        })
    }

    #[test]
    fn a_directory_has_a_place_and_a_mode() {
        assert_eq!("data:/d:ro".parse(), dir("data", "/d", false));
        assert_eq!("data:/d:rw".parse(), dir("data", "/d", true));
        assert_eq!("data:/d".parse(), dir("data", "/d", true));
        assert_eq!("./data:ro".parse(), dir("./data", "/data", false));
        assert_eq!("/srv/data".parse(), dir("/srv/data", "/srv/data", true));
        assert_eq!(".".parse(), dir(".", "/", true));
        assert_eq!("..:/up".parse(), dir("..", "/up", true));
        assert_eq!("a:b:/c".parse(), dir("a:b", "/c", true));
    }

    #[test]
    fn a_directory_without_a_clear_place_is_refused() {
        for text in ["", ":/d", "a:b", "a:/b:r", "..", "a:/../b", "a:"] {
            assert!(text.parse::<Dir>().is_err(), "{text}");
        }
    }
}
