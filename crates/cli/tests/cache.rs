//! `wisp cache`, without containerd.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// `(module (func (export "_start")))`
const ENDS: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\
    \x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
/// `(module (func (export "_start") (loop (br 0))))`
const SPINS: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\
    \x07\x0a\x01\x06_start\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

/// A cache of its own.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(TempDir::new().expect("dir"));
        let text = format!(
            "[cache]\ndir = {:?}\nrun_dir = {:?}\n",
            node.cache(),
            node.path("run")
        );
        fs::write(node.path("config.toml"), text).expect("write");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    fn wisp(&self, args: &[&str]) -> Command {
        let mut wisp = Command::new(env!("CARGO_BIN_EXE_wisp"));
        wisp.args(args)
            .env("WISP_CONFIG", self.path("config.toml"))
            .env_remove("CONTAINERD_ADDRESS")
            .env_remove("CONTAINERD_NAMESPACE")
            .stdin(Stdio::null());
        wisp
    }

    /// Exit code, standard output and standard error.
    fn says(&self, args: &[&str]) -> (i32, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.wisp(args).output().expect("run wisp");
        (
            status.code().expect("an exit code"),
            String::from_utf8(stdout).expect("text"),
            String::from_utf8(stderr).expect("text"),
        )
    }

    fn works(&self, args: &[&str]) -> String {
        let (code, out, err) = self.says(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
        out
    }

    fn run(&self, program: &[u8]) {
        fs::write(self.path("app.wasm"), program).expect("write");
        let app = self.path("app.wasm").display().to_string();
        self.works(&["run", &app]);
    }

    fn list(&self) -> Vec<Value> {
        let list = self.works(&["cache", "ls", "--json"]);
        serde_json::from_str(&list).expect("a list")
    }

    /// Changes a byte of the only file.
    fn damage(&self) -> PathBuf {
        let path = PathBuf::from(self.list()[0]["path"].as_str().expect("path"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
        let file = fs::File::options().write(true).open(&path).expect("open");
        file.write_all_at(b"xyz", 1000).expect("write");
        fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("chmod");
        path
    }
}

#[test]
fn an_empty_cache_is_no_error() {
    let node = Node::new();
    assert_eq!(node.list(), Vec::<Value>::new());
    assert_eq!(node.works(&["cache", "ls"]).lines().count(), 1);
    assert_eq!(node.works(&["cache", "verify"]), "0 checked, 0 damaged\n");
    let pruned = node.works(&["cache", "prune"]);
    assert_eq!(pruned, "removed 0 (0 B); 0 left (0 B)\n");
    assert!(!node.cache().exists());
}

#[test]
fn what_was_compiled_is_listed() {
    let node = Node::new();
    node.run(ENDS);
    node.run(ENDS);
    let list = node.list();
    assert_eq!(list.len(), 1);
    let entry = &list[0];
    let digest = entry["digest"].as_str().expect("digest");
    assert_eq!(entry["program_size"], ENDS.len());
    assert_eq!(entry["wisp"], env!("CARGO_PKG_VERSION"));
    assert_eq!(entry["current"], true);
    assert_eq!(entry["in_use"], false);
    assert_eq!(entry["damage"], Value::Null);
    let table = node.works(&["cache", "ls"]);
    assert!(table.contains(digest), "{table}");
    assert_eq!(node.works(&["cache", "verify"]), "1 checked, 0 damaged\n");
}

#[test]
fn what_runs_stays() {
    let node = Node::new();
    fs::write(node.path("spins.wasm"), SPINS).expect("write");
    let mut running = node
        .wisp(&["run", node.path("spins.wasm").to_str().expect("path")])
        .spawn()
        .expect("run");
    // Until then it is being compiled.
    while node
        .list()
        .first()
        .is_none_or(|entry| entry["in_use"] != true)
    {
        assert!(running.try_wait().expect("wait").is_none(), "it ended");
        sleep(Duration::from_millis(20));
    }
    let table = node.works(&["cache", "ls"]);
    assert!(table.contains("in use"), "{table}");
    let pruned = node.works(&["cache", "prune", "--all"]);
    assert!(pruned.contains("1 stay because they run"), "{pruned}");
    assert_eq!(node.list().len(), 1);
    running.kill().expect("kill");
    running.wait().expect("wait");
    let pruned = node.works(&["cache", "prune", "--all"]);
    assert!(pruned.contains("removed 1 "), "{pruned}");
    assert_eq!(node.list().len(), 0);
}

#[test]
fn damage_is_told_and_removed_only_on_request() {
    let node = Node::new();
    node.run(ENDS);
    let path = node.damage();
    let (code, out, _) = node.says(&["cache", "verify"]);
    assert_eq!(code, 1);
    assert!(out.contains(path.to_str().expect("path")), "{out}");
    assert!(out.contains("checksum"), "{out}");
    assert!(path.exists());
    let (code, out, _) = node.says(&["cache", "verify", "--remove"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("(removed)"), "{out}");
    assert!(!path.exists());
}

#[test]
fn a_damaged_program_is_compiled_again_with_a_warning() {
    let node = Node::new();
    node.run(ENDS);
    node.damage();
    let app = node.path("app.wasm").display().to_string();
    let (code, _, err) = node.says(&["run", &app]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("damaged"), "{err}");
    assert_eq!(node.works(&["cache", "verify"]), "1 checked, 0 damaged\n");
}

#[test]
fn prune_follows_its_flags_and_else_the_settings() {
    let node = Node::new();
    node.run(ENDS);
    node.run(ENDS_TOO);
    for args in [
        &["prune"][..],
        &["prune", "--max-size", "1GiB"],
        &["prune", "--older-than", "1h"],
        &["prune", "--all", "--dry-run"],
    ] {
        node.works(&[&["cache"], args].concat());
        assert_eq!(node.list().len(), 2, "{args:?}");
    }
    let trial = node.works(&["cache", "prune", "--max-size", "0", "--dry-run"]);
    assert!(trial.contains("would remove 2 "), "{trial}");
    let size = fs::metadata(node.list()[1]["path"].as_str().expect("path"));
    let size = size.expect("file").len().to_string();
    node.works(&["cache", "prune", "--max-size", &size]);
    assert_eq!(node.list().len(), 1);
    node.works(&["cache", "prune", "--older-than", "0s"]);
    assert_eq!(node.list().len(), 0);
}

/// Another program that ends: the same with an empty custom section.
const ENDS_TOO: &[u8] = b"\0asm\x01\0\0\0\0\x02\x01x\x01\x04\x01\x60\0\0\
    \x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

#[test]
fn wrong_input_is_refused_by_its_flag() {
    let node = Node::new();
    for (args, expected) in [
        (&["prune", "--max-size", "much"][..], "--max-size"),
        (&["prune", "--max-size=-1"], "--max-size"),
        (&["prune", "--older-than", "7"], "--older-than"),
        (&["prune", "--all", "--max-size", "1"], "--max-size"),
        (&["prune", "--all", "--older-than", "1d"], "--older-than"),
        (&["prune", "everything"], "everything"),
        (&["ls", "--yaml"], "--yaml"),
        (&["verify", "--repair"], "--repair"),
        (&["warm"], "<IMAGE>"),
        (&["warm", "--namespace"], "--namespace"),
        (&["watch", "image"], "image"),
        (&["watch", "--address"], "--address"),
        (&["clean"], "clean"),
    ] {
        let (code, _, err) = node.says(&[&["cache"], args].concat());
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
}

#[test]
fn a_containerd_that_is_not_there_is_named() {
    let node = Node::new();
    let socket = node.path("no.sock").display().to_string();
    let (code, _, err) = node.says(&["cache", "warm", "-a", &socket, "image"]);
    assert_eq!(code, 1);
    assert!(err.contains(&socket), "{err}");
    let (code, _, err) = node.says(&["cache", "warm", "-n", "two\nlines", "image"]);
    assert_eq!(code, 1);
    assert!(err.contains("namespace"), "{err}");
    let said = node
        .wisp(&["cache", "warm", "image"])
        .env("CONTAINERD_ADDRESS", &socket)
        .output()
        .expect("run");
    assert!(String::from_utf8_lossy(&said.stderr).contains(&socket));
}

#[test]
fn a_directory_that_cannot_be_trusted_is_named() {
    let node = Node::new();
    node.run(ENDS);
    fs::set_permissions(node.cache(), Permissions::from_mode(0o777)).expect("chmod");
    for command in ["ls", "verify", "prune"] {
        let (code, _, err) = node.says(&["cache", command]);
        assert_eq!(code, 1);
        assert!(err.contains("written by others"), "{err}");
        assert!(err.contains(node.cache().to_str().expect("path")), "{err}");
    }
}
