//! The machine that all tests change and leave as it was.

use anyhow::{Context, Result, bail, ensure};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use wisp_tests::cri::api::{StatusRequest, VersionRequest};
use wisp_tests::cri::{DescribePod, Node, Test};
use wisp_tests::images::Images;
use wisp_tests::run::Ended;
use wisp_tests::unit::{CONFIG, Unit};
use wisp_tests::{Version, command, leaks, paths, wait};

/// How long one run may take, restarts and a first compilation included.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Where `wisp node` writes down what it did.
pub const STATE: &str = "/var/lib/wisp/install";
/// Where it puts programs.
pub const PROGRAMS: &str = "/opt/wisp";

/// What is compiled is kept, whoever goes.
const KEPT: &str = "/var/lib/wisp/aot";

/// Its containerd, which does not know wisp.
pub struct Machine {
    node: Node,
    images: Images,
}

impl Machine {
    /// With this version of containerd.
    pub fn start(version: Version) -> Result<Self> {
        // What containerd 2.2 has by itself.
        let more = match version {
            Version::V1_6 => "",
            Version::V2_1 => "imports = [\"/etc/containerd/conf.d/*.toml\"]\n",
        };
        fs::create_dir_all("/etc/containerd/conf.d")?;
        Ok(Self {
            node: Node::on_systemd(version, more)?,
            images: Images::new()?,
        })
    }

    pub fn version(&self) -> Version {
        self.node.as_ref().version()
    }

    /// The last words of containerd.
    pub fn log(&self) -> String {
        let log = self.node.as_ref().log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(60)..];
        let short = |line: &&str| line.chars().take(500).collect::<String>();
        last.iter().map(short).collect::<Vec<_>>().join("\n")
    }

    /// Runs a test, which must leave the machine as it was.
    pub fn run(&self, body: fn(&Subject<'_>) -> Result<()>) -> Result<()> {
        let before = files()?;
        let subject = Subject {
            test: Test::new(&self.node, &self.images)?,
            slices: Cell::default(),
        };
        body(&subject)?;
        subject.test.nothing_left()?;
        same(&before, &files()?)
    }
}

/// What a test is given.
pub struct Subject<'m> {
    pub test: Test<'m>,
    slices: Cell<usize>,
}

impl<'m> Subject<'m> {
    /// The unit of containerd.
    pub fn unit(&self) -> Result<&Unit> {
        self.test.node.as_ref().unit()
    }

    /// A pod as kubelet has them here: in a slice of systemd's.
    pub fn pod(&self, name: &str) -> DescribePod<'_, 'm> {
        let number = self.slices.get();
        self.slices.set(number + 1);
        let slice = format!("wisptests-node{number}.slice");
        self.test
            .pod(name)
            .linux(|linux| linux.cgroup_parent = slice)
    }

    /// `wisp node` of the programs in a directory, to its end.
    pub fn wisp_in(&self, programs: &Path, arguments: &[&str]) -> Result<Ended> {
        let mut wisp = Command::new(programs.join("wisp"));
        wisp.arg("node").args(arguments);
        command::run(&mut wisp, Vec::new(), PATIENCE)
    }

    /// The same of the programs under test.
    pub fn wisp(&self, arguments: &[&str]) -> Result<Ended> {
        self.wisp_in(&paths::binaries(), arguments)
    }

    /// Installs, and waits until containerd answers again.
    pub fn install(&self) -> Result<Ended> {
        let ended = self.wisp(&["install"])?;
        ensure!(ended.code == 0, "{}", ended.err());
        self.reconnect()?;
        Ok(ended)
    }

    /// The connection of before a restart fails once.
    pub fn reconnect(&self) -> Result<()> {
        let answers = || {
            let asked = VersionRequest::default();
            self.test
                .client()
                .call("Version", async |mut to| to.version(asked).await)
                .ok()
        };
        wait::until(PATIENCE, answers)
            .map(drop)
            .context("containerd does not answer any more")
    }

    /// Whether a CRI client is told of the handler `wisp`.
    pub fn has_handler(&self) -> Result<bool> {
        let asked = StatusRequest { verbose: true };
        let said = self
            .test
            .client()
            .call("Status", async |mut to| to.status(asked).await)?;
        let by_name = said
            .runtime_handlers
            .iter()
            .any(|handler| handler.name == "wisp");
        let config = said.info.get("config").map_or("null", String::as_str);
        let config: serde_json::Value = serde_json::from_str(config)?;
        let in_config = config["containerd"]["runtimes"]["wisp"].is_object();
        // Before 2.0 there were no handlers to be told of.
        if self.test.version() != Version::V1_6 {
            ensure!(by_name == in_config, "{said:?}");
        }
        Ok(in_config)
    }

    /// The programs under test as another build of the same version, in a
    /// directory: what is behind a program's end in its file is never read.
    pub fn other_build(&self) -> Result<PathBuf> {
        let dir = self.test.volume("other")?;
        for name in ["containerd-shim-wisp-v1", "wisp"] {
            let path = dir.join(name);
            fs::copy(paths::binaries().join(name), &path)?;
            let mut file = fs::File::options().append(true).open(&path)?;
            std::io::Write::write_all(&mut file, b"another build")?;
        }
        Ok(dir)
    }

    /// Starts `wisp node`, and kills it as soon as it says that it is about to do
    /// `step`.
    pub fn killed_at(&self, step: &str, arguments: &[&str]) -> Result<()> {
        let mut wisp = Command::new(paths::wisp());
        wisp.arg("node")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = wisp.spawn().with_context(|| format!("{wisp:?}"))?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut said = Vec::new();
        for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)) {
            let line = line?;
            let reached = line == format!("==> {step}");
            said.push(line);
            if reached {
                child.kill()?;
                child.wait()?;
                return Ok(());
            }
        }
        child.wait()?;
        bail!("it did not come to the step {step:?}: {said:?}")
    }
}

/// The versions that are there.
pub fn builds() -> Vec<PathBuf> {
    let is_build = |path: &PathBuf| path.is_dir() && !path.is_symlink();
    let mut all = leaks::children(Path::new(PROGRAMS));
    all.retain(is_build);
    all
}

/// The directory of the programs that a process runs.
pub fn build_of(pid: u32) -> Result<PathBuf> {
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Whether anything names wisp in containerd's configuration.
pub fn is_configured() -> bool {
    leaks::below(Path::new("/etc/containerd"))
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .any(|text| text.contains("containerd-shim-wisp-v1"))
}

/// Every file, directory and link of places that an installer could change.
type Files = BTreeMap<PathBuf, (u32, u32, u32, Vec<u8>)>;

/// What there is.
pub fn files() -> Result<Files> {
    ensure!(Path::new(CONFIG).is_file(), "no {CONFIG}");
    let roots = ["/etc", "/opt", "/usr/local", "/var/lib/wisp"].map(Path::new);
    let mut found = Files::new();
    for path in roots.into_iter().flat_map(leaks::below) {
        let is_kept = path.starts_with(KEPT) || path == Path::new("/var/lib/wisp");
        // Removed between the two looks.
        let Some(about) = fs::symlink_metadata(&path).ok().filter(|_| !is_kept) else {
            continue;
        };
        let content = match about.file_type() {
            kind if kind.is_symlink() => {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            }
            kind if kind.is_file() => fs::read(&path)?,
            _ => Vec::new(),
        };
        found.insert(path, (about.mode(), about.uid(), about.gid(), content));
    }
    Ok(found)
}

/// Complains of what has changed.
pub fn same(before: &Files, after: &Files) -> Result<()> {
    let differ = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(differ).collect();
    ensure!(changed.is_empty(), "changed, new or gone: {changed:?}");
    Ok(())
}
