//! The cache of compiled programs, as containers and `wisp cache` use it.

use super::Case;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wisp_tests::command::{self, Ended};
use wisp_tests::images::Images;
use wisp_tests::oci::{Entry, Image};
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Containerd, Test, Version, paths, processes};

const HELLO: &str = "hello from a component\n";

pub fn cases() -> Vec<Case> {
    let mut cases = super::cases(
        "cache",
        &[
            (
                "twenty containers of a new image at once compile once",
                at_once,
            ),
            ("damaged code is compiled again, with one warning", damaged),
            (
                "code that the engine refuses is compiled again, with a warning",
                refused,
            ),
            ("a file of the image is read once, not at each start", memo),
            (
                "a program that the container has changed is read anew",
                changed,
            ),
            (
                "the code of a running guest stays when the cache is pruned",
                in_use,
            ),
            ("`wisp cache warm` compiles an image's file", warm),
            ("`wisp cache warm` says what it cannot compile", not_warm),
            (
                "`wisp cache watch` compiles what is there and what comes, also after a crash of \
                 containerd",
                watch,
            ),
            (
                "`wisp cache watch` ends on SIGTERM with what it started",
                watch_ends,
            ),
        ],
    );
    let mut artifacts = super::cases(
        "cache",
        &[("`wisp cache warm` compiles a Wasm layer", warm_layer)],
    );
    for case in &mut artifacts {
        case.on = Version::unpacks_wasm_layers;
    }
    cases.append(&mut artifacts);
    cases
}

/// A cache of the test's own, empty at first.
struct Own<'t, 'n> {
    test: &'t Test<'n>,
}

impl<'t, 'n> Own<'t, 'n> {
    fn new(test: &'t Test<'n>) -> Self {
        Self { test }
    }

    fn dir(&self) -> PathBuf {
        self.test.dir().join("cache")
    }

    fn run_dir(&self) -> PathBuf {
        self.test.dir().join("known")
    }

    /// Settings with this compiler, or with `wisp`.
    fn config(&self, compiler: Option<&str>) -> String {
        let text = format!(
            "[cache]\ndir = {:?}\nrun_dir = {:?}\n",
            self.dir(),
            self.run_dir()
        );
        match compiler {
            Some(path) => format!("{text}[compiler]\npath = {path:?}\n"),
            None => text,
        }
    }

    /// Only what is kept can run.
    fn without_compiler(&self) -> String {
        self.config(Some("/nonexistent/wisp"))
    }

    /// A program in the compiler's place that leaves a line for each of its
    /// runs and goes on as `then` says.
    fn counting(&self, then: &str) -> Result<String> {
        let runs = self.test.dir().join("runs");
        let script = format!("#!/bin/sh\necho run >> {}\n{then}\n", runs.display());
        let path = self.test.file("compiler", script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path.display().to_string())
    }

    fn runs(&self) -> usize {
        let runs = fs::read_to_string(self.test.dir().join("runs"));
        runs.map_or(0, |runs| runs.lines().count())
    }

    fn files(&self) -> Vec<PathBuf> {
        wisp_tests::leaks::children(&self.dir())
    }

    /// The only file there is.
    fn file(&self) -> Result<PathBuf> {
        let mut files = self.files();
        ensure!(files.len() == 1, "{files:?}");
        files.pop().context("a file")
    }

    /// `wisp cache`, with settings that name this compiler.
    fn wisp(&self, compiler: Option<&str>, args: &[&str]) -> Result<Command> {
        let settings = self.test.file("wisp.toml", self.config(compiler))?;
        let mut wisp = Command::new(paths::wisp());
        wisp.arg("cache").args(args).env("WISP_CONFIG", settings);
        Ok(wisp)
    }

    fn warm(&self, images: &[&str]) -> Result<Ended> {
        let socket = self.test.node.socket().display().to_string();
        let mut args = vec!["warm", "-a", &socket, "-n", self.test.namespace()];
        args.extend(images);
        command::run(&mut self.wisp(None, &args)?, Vec::new(), PATIENCE * 4)
    }
}

fn says(ended: &Ended, expected: &str) -> Result<()> {
    ensure!(
        ended.code == 0 && ended.out() == expected,
        "{ended:?}\n{}",
        ended.err()
    );
    Ok(())
}

/// The warnings of a test's containers in containerd's log.
fn warnings(test: &Test<'_>) -> Vec<String> {
    let log = test.node.log_about(test.namespace());
    log.lines()
        .filter(|line| line.contains("level=warn") && line.contains("runtime=wisp"))
        .map(str::to_owned)
        .collect()
}

fn at_once(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.image("hello")?;
    let compiler = own.counting(&format!("exec {} \"$@\"", paths::wisp().display()))?;
    let run = test.run(&image).config(&own.config(Some(&compiler)))?;
    let children: Vec<Child> = (0..20)
        .map(|_| {
            let mut ctr = run.command();
            ctr.stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    for child in children {
        let ended = child.wait_with_output()?;
        let out = String::from_utf8_lossy(&ended.stdout);
        let err = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success() && out == HELLO, "{out}\n{err}");
    }
    ensure!(own.runs() == 1, "compiled {} times", own.runs());
    own.file().map(drop)
}

fn damaged(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.image("hello")?;
    let run = test.run(&image).config(&own.config(None))?;
    says(&run.clone().ctr()?, HELLO)?;
    let path = own.file()?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    let file = fs::File::options().write(true).open(&path)?;
    file.write_all_at(b"damaged", 5000)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
    says(&run.clone().ctr()?, HELLO)?;
    says(&run.ctr()?, HELLO)?;
    let warnings = warnings(test);
    ensure!(
        warnings.len() == 1 && warnings[0].contains("damaged"),
        "{warnings:#?}"
    );
    own.file().map(drop)
}

fn refused(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.image("hello")?;
    // Whole, but not what the engine takes.
    let compiler = own.counting("/bin/cat >/dev/null; echo no code")?;
    let run = test.run(&image).config(&own.config(Some(&compiler)))?;
    ensure!(run.ctr()?.code != 0, "it ran");
    own.file()?;
    let run = test.run(&image).config(&own.config(None))?;
    says(&run.ctr()?, HELLO)?;
    let warnings = warnings(test);
    ensure!(
        warnings.len() == 1 && warnings[0].contains("refused"),
        "{warnings:#?}"
    );
    let run = test.run(&image).config(&own.without_compiler())?;
    says(&run.ctr()?, HELLO)
}

/// Runs `image` until the digest of its file is kept: not while it is new.
fn until_known(test: &Test<'_>, own: &Own<'_, '_>, image: &str) -> Result<PathBuf> {
    let run = test.run(image).config(&own.config(None))?;
    for _ in 0..100 {
        says(&run.clone().ctr()?, HELLO)?;
        let known = wisp_tests::leaks::children(&own.run_dir());
        let digest = known
            .into_iter()
            .find(|path| path.to_string_lossy().contains("digest-"));
        if let Some(digest) = digest {
            return Ok(digest);
        }
    }
    anyhow::bail!("the digest is never kept")
}

fn memo(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.image("hello")?;
    let fact = until_known(test, &own, &image)?;
    // A lie that only who does not read the file believes.
    let module = test.image("hello-module")?;
    let other = test.run(&module).config(&own.config(None))?.ctr()?;
    ensure!(other.code == 0, "{other:?}");
    let digest = wisp_tests::oci::digest(&fs::read(paths::guest("hello-module")?)?);
    let text = fs::read_link(&fact)?;
    let boot = text.to_str().and_then(|text| text.split(' ').next());
    fs::remove_file(&fact)?;
    symlink(format!("{} {digest}", boot.context("a boot")?), &fact)?;
    let run = test.run(&image).config(&own.without_compiler())?;
    says(&run.ctr()?, &other.out())
}

fn changed(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.image("hello")?;
    until_known(test, &own, &image)?;
    // A container whose upper directory has another program of that name.
    let id = test.run(&image).config(&own.config(None))?.create()?;
    let mounts = test.ctr_ok(&["snapshot", "mounts", "/nowhere", &id])?.out();
    let upper = mounts
        .split([',', ' ', '\n'])
        .find_map(|word| word.strip_prefix("upperdir="))
        .with_context(|| mounts.clone())?;
    fs::copy(
        paths::guest("hello-module")?,
        Path::new(upper).join("hello.wasm"),
    )?;
    let ended = test.ctr(&["task", "start", &id])?;
    says(&ended, "hello from a core module\n")?;
    test.ctr(&["task", "rm", "-f", &id])?;
    test.ctr_ok(&["container", "rm", &id])?;
    // Nobody else's file is that of this container.
    let run = test.run(&image).config(&own.without_compiler())?;
    says(&run.ctr()?, HELLO)
}

fn in_use(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.image("tour")?;
    let run = test.run(&image).config(&own.config(None))?;
    let running = run.args(&["spin"]).start()?;
    running.stdout.until("spinning", PATIENCE)?;
    let list = command::run(
        &mut own.wisp(None, &["ls", "--json"])?,
        Vec::new(),
        PATIENCE,
    )?;
    let list: Value = serde_json::from_slice(&list.stdout)?;
    ensure!(list[0]["in_use"] == true, "{list}");
    let prune = |expected: &str| {
        let ended = command::run(
            &mut own.wisp(None, &["prune", "--all"])?,
            Vec::new(),
            PATIENCE,
        )?;
        ensure!(ended.out().contains(expected), "{}", ended.out());
        Ok(())
    };
    prune("1 stay")?;
    running.end_by(Signal::SIGKILL)?;
    prune("removed 1 ")
}

fn warm(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let hello = fs::read(paths::guest("hello")?)?;
    // Behind a link, below another layer.
    let image = test.built("warm-linked", |reference, output| {
        Image::new(&["app.wasm"])
            .files(&[
                Entry::Dir("opt"),
                Entry::File("opt/hello.wasm", 0o755, &hello),
            ])?
            .files(&[
                Entry::Dir("usr"),
                Entry::Dir("usr/bin"),
                Entry::Link("usr/bin/app.wasm", "../../opt/hello.wasm"),
            ])?
            .write(reference, true, output)
    })?;
    let plain = test.image("hello-module")?;
    let ended = own.warm(&[&image, &plain])?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(ended.out().matches("compiled in").count() == 2, "{ended:?}");
    let ended = own.warm(&[&image])?;
    ensure!(ended.out().contains("is there already"), "{ended:?}");
    let run = test.run(&image).config(&own.without_compiler())?;
    says(&run.ctr()?, HELLO)?;
    let run = test.run(&plain).config(&own.without_compiler())?;
    ensure!(run.ctr()?.code == 0, "the module does not run");
    Ok(())
}

fn warm_layer(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let image = test.packed(
        "warm-artifact",
        &paths::guest("hello")?,
        &["--artifact", "--layer-type", "wasm"],
    )?;
    let ended = own.warm(&[&image])?;
    ensure!(ended.code == 0, "{ended:?}");
    let run = test.run(&image).config(&own.without_compiler())?;
    says(&run.ctr()?, HELLO)
}

fn not_warm(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    let busybox = test.busybox()?;
    let hello = test.image("hello")?;
    let ended = own.warm(&["localhost/nothing:1", &busybox, &hello])?;
    ensure!(ended.code == 1, "{ended:?}");
    for words in [
        "localhost/nothing:1",
        test.namespace(),
        "no Wasm layer",
        &busybox,
    ] {
        ensure!(ended.err().contains(words), "no {words} in {}", ended.err());
    }
    // The others are compiled all the same.
    ensure!(ended.out().contains("compiled in"), "{ended:?}");
    own.file().map(drop)
}

/// `wisp cache watch`, killed if the test fails.
struct Watch(Child);

impl Watch {
    fn start(own: &Own<'_, '_>, node: &Containerd, compiler: Option<&str>) -> Result<Self> {
        let socket = node.socket().display().to_string();
        let namespace = own.test.namespace();
        let args = ["watch", "-a", &socket, "-n", namespace];
        let log = fs::File::create(own.test.dir().join("watch.log"))?;
        let child = own
            .wisp(compiler, &args)?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }

    /// Ends it as systemd would; answers its exit code.
    fn end(mut self) -> Result<i32> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), Signal::SIGTERM)?;
        let status = wait::until(PATIENCE, || self.0.try_wait().ok().flatten());
        status
            .context("it does not end")?
            .code()
            .context("no exit code")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until so many programs are compiled.
fn until_compiled(own: &Own<'_, '_>, count: usize) -> Result<()> {
    let compiled = || {
        let files = own.files();
        let codes = files
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "aot"));
        (codes.count() == count).then_some(())
    };
    // It runs only while nobody else wants the processor.
    wait::until(Duration::from_secs(120), compiled).with_context(|| {
        let log = fs::read_to_string(own.test.dir().join("watch.log"));
        format!("{:?}\n{}", own.files(), log.unwrap_or_default())
    })
}

fn watch(shared: &Test<'_>) -> Result<()> {
    // Nobody else's containerd.
    let node = Containerd::start(shared.node.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let own = Own::new(&test);
    test.busybox()?;
    let first = test.image("hello")?;
    let watch = Watch::start(&own, &node, None)?;
    until_compiled(&own, 1)?;
    let second = test.image("hello-module")?;
    until_compiled(&own, 2)?;
    node.crash_and_restart()?;
    test.image("tour")?;
    until_compiled(&own, 3)?;
    ensure!(watch.end()? == 0, "not 0");
    ensure!(own.files().len() == 3, "{:?}", own.files());
    for image in [first, second] {
        let run = test.run(&image).config(&own.without_compiler())?;
        ensure!(run.ctr()?.code == 0, "{image} is not compiled");
    }
    let log = fs::read_to_string(test.dir().join("watch.log"))?;
    ensure!(!log.contains("busybox"), "{log}");
    test.nothing_left()
}

fn watch_ends(test: &Test<'_>) -> Result<()> {
    let own = Own::new(test);
    test.image("hello")?;
    let compiler = own.counting("exec sleep 1000")?;
    let watch = Watch::start(&own, test.node, Some(&compiler))?;
    wait::until(PATIENCE, || (own.runs() > 0).then_some(())).context("nothing compiles")?;
    ensure!(watch.end()? == 0, "not 0");
    ensure!(own.files().is_empty(), "{:?}", own.files());
    let dir = test.dir().display().to_string();
    let left = processes::concerning(&dir);
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
