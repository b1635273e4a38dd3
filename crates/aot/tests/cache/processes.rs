//! Many processes, and processes that are killed: the example `load`.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;
use wisp_aot::Limits;

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that loads the program.
struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    fn start(node: &Node, more: &[&str]) -> Self {
        let (settings, program) = files(node);
        // Cargo builds the examples before the tests run.
        let test = std::env::current_exe().expect("own path");
        let target = test.parent().and_then(Path::parent).expect("target");
        let mut child = Command::new(target.join("examples/load"))
            .args([&settings, &program])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().expect("stdout")),
            child,
        }
    }

    /// What it says of the load. It goes on until [`Self::end`].
    fn said(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read");
        line.trim_end().to_owned()
    }

    fn end(mut self) {
        drop(self.stdin.take());
        self.child.wait().expect("wait");
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Whether it has a file open whose name contains `part`.
    fn has_open(&self, part: &str) -> bool {
        let dir = format!("/proc/{}/fd", self.child.id());
        let links = fs::read_dir(dir).expect("process");
        links.flatten().any(|link| {
            fs::read_link(link.path()).is_ok_and(|path| path.to_string_lossy().contains(part))
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings and the program, written once: others may be reading them.
fn files(node: &Node) -> (PathBuf, PathBuf) {
    let settings = node.dir.path().join("config.toml");
    let program = node.dir.path().join("program");
    if !settings.exists() {
        let config = node.config();
        let compiler = node.dir.path().join("compiler");
        let text = format!(
            "[cache]\ndir = {:?}\nrun_dir = {:?}\n[compiler]\npath = {compiler:?}\n\
             timeout_seconds = 60",
            config.cache.dir, config.cache.run_dir
        );
        fs::write(&program, PROGRAM).expect("write");
        fs::write(&settings, text).expect("write");
    }
    (settings, program)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A compiler that counts its runs and waits for a file to go on. Whoever started
/// it may have been killed; it goes with its test's directory.
fn slow(node: &Node, rest: &str) {
    let dir = node.dir.path().display();
    node.compiler(&format!(
        "echo run >> {dir}/runs\nwhile [ ! -e {dir}/go ]; do\n[ -d {dir} ] || exit 1\n/bin/sleep 0.01\ndone\n{rest}"
    ));
}

fn runs(node: &Node) -> usize {
    fs::read_to_string(node.dir.path().join("runs")).map_or(0, |runs| runs.lines().count())
}

fn go(node: &Node) {
    fs::write(node.dir.path().join("go"), "").expect("write");
}

#[test]
fn fifty_at_once_compile_once() {
    let node = Node::new();
    slow(&node, COPY);
    let mut loads: Vec<Load> = (0..50).map(|_| Load::start(&node, &[])).collect();
    until("all wait for one", || {
        runs(&node) == 1 && loads.iter().all(|load| load.has_open(".lock-"))
    });
    go(&node);
    let mut said: Vec<String> = loads.iter_mut().map(Load::said).collect();
    said.sort();
    assert_eq!(said.pop().as_deref(), Some("compiled"));
    assert!(said.iter().all(|said| said == "cached"), "{said:?}");
    assert_eq!(runs(&node), 1);
    assert_eq!(node.files(), [code_name()]);
    loads.into_iter().for_each(Load::end);
}

#[test]
fn who_waits_for_a_program_that_cannot_be_compiled_is_told_why() {
    let node = Node::new();
    slow(&node, "/bin/cat >/dev/null; echo no good >&2; exit 1");
    let mut loads: Vec<Load> = (0..20).map(|_| Load::start(&node, &[])).collect();
    until("all wait for one", || {
        runs(&node) == 1 && loads.iter().all(|load| load.has_open(".lock-"))
    });
    go(&node);
    for load in &mut loads {
        assert_eq!(load.said(), "error: no good");
    }
    assert_eq!(runs(&node), 1);
    assert_eq!(node.files(), Vec::<String>::new());
}

#[test]
fn another_goes_on_when_the_one_that_compiles_is_killed() {
    let node = Node::new();
    slow(&node, COPY);
    let mut first = Load::start(&node, &[]);
    until("it compiles", || runs(&node) == 1);
    let mut others: Vec<Load> = (0..5).map(|_| Load::start(&node, &[])).collect();
    until("the others wait", || {
        others.iter().all(|load| load.has_open(".lock-"))
    });
    first.kill();
    until("another one compiles", || runs(&node) == 2);
    go(&node);
    let mut said: Vec<String> = others.iter_mut().map(Load::said).collect();
    said.sort();
    assert_eq!(said, ["cached", "cached", "cached", "cached", "compiled"]);
    assert_eq!(runs(&node), 2);
    assert_eq!(node.files(), [code_name()]);
}

#[test]
fn a_process_that_is_killed_at_any_moment_leaves_whole_code_or_none() {
    let node = Node::new();
    // Large enough that storing it takes a while.
    node.compiler("printf code:; /bin/cat; exec /usr/bin/head -c 6000000 /dev/zero");
    let mut whole = 0;
    for moment in 0..80 {
        let mut load = Load::start(&node, &[]);
        std::thread::sleep(Duration::from_micros(moment * 500));
        load.kill();
        for entry in node.cache().entries().expect("entries") {
            entry.verify().expect("whole");
            whole += 1;
            if moment % 2 == 0 {
                fs::remove_file(entry.path).expect("remove");
            }
        }
    }
    println!("{whole} of 80 had got so far");
    // Whatever is left is no obstacle, and goes.
    let mut last = Load::start(&node, &[]);
    let said = last.said();
    assert!(said == "compiled" || said == "cached", "{said}");
    last.end();
    node.cache()
        .prune(&Limits::default(), false)
        .expect("pruned");
    assert_eq!(node.files(), [code_name()]);
}

#[test]
fn code_is_in_use_until_the_last_process_ends() {
    let node = Node::new();
    node.compiler(COPY);
    let all = Limits {
        all: true,
        ..Limits::default()
    };
    let prune = || {
        node.cache()
            .prune(&all, false)
            .expect("pruned")
            .removed
            .len()
    };
    let mut loads = [Load::start(&node, &[]), Load::start(&node, &[])];
    for load in &mut loads {
        load.said();
    }
    let [one, mut two] = loads;
    assert_eq!(prune(), 0);
    one.end();
    assert_eq!(prune(), 0);
    two.kill();
    assert_eq!(prune(), 1);
}

#[test]
fn nobody_waits_for_who_compiles_ahead() {
    let node = Node::new();
    slow(&node, COPY);
    let mut ahead = Load::start(&node, &["ahead"]);
    until("it compiles", || runs(&node) == 1);
    let mut now = Load::start(&node, &[]);
    until("both compile", || runs(&node) == 2);
    go(&node);
    assert_eq!(now.said(), "compiled");
    ahead.said();
    // One file, and the one that was there first stays.
    assert_eq!(node.files(), [code_name()]);
    let mut again = Load::start(&node, &["ahead"]);
    assert_eq!(again.said(), "cached");
    for mut load in [now, ahead, again] {
        writeln!(load.stdin.as_mut().expect("stdin"), "go on").expect("write");
        load.end();
    }
}
