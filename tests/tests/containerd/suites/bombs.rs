//! Programs made to burden the node while they are compiled: each is an error
//! of Create that names the limit and its setting, and no other container
//! notices.

use super::Case;
use super::lifecycle::shims;
use super::refused::{image_of, refused, with_compiler};
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Stdio};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection, ValType,
};
use wisp_tests::processes::{self, Process};
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, paths};

pub fn cases() -> Vec<Case> {
    super::cases(
        "bombs",
        &[
            ("a program that takes too much memory to compile", memory),
            ("a program that takes too long to compile", time),
            ("a program that is too large", size),
            ("a program whose code is too large", code),
            (
                "a pod goes on while one of its programs is compiled, and its creator can be killed",
                others_go_on,
            ),
            ("a compiler dies with the daemon", daemon_killed),
            ("a compiler dies when its client gives up", given_up),
        ],
    )
}

const MIB: usize = 1 << 20;

/// A module of `count` functions of `size` bytes each, the first of which is
/// `_start`. None of their instructions can be left out.
fn module(count: usize, size: usize) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    let mut declared = FunctionSection::new();
    let mut code = CodeSection::new();
    declared.function(0);
    code.function(&{
        let mut start = Function::new([]);
        start.instructions().end();
        start
    });
    for seed in 0..count {
        declared.function(1);
        let mut function = Function::new([(1, ValType::I32)]);
        let mut body = function.instructions();
        for step in 0..size / 13 {
            let number = i32::try_from((seed ^ step) & 0x3f).unwrap_or_default();
            body.local_get(0)
                .i32_const(number)
                .i32_add()
                .local_tee(1)
                .local_get(1)
                .i32_mul()
                .local_set(0);
        }
        body.local_get(0).end();
        code.function(&function);
    }
    let mut exports = ExportSection::new();
    exports.export("_start", ExportKind::Func, 0);
    let mut module = Module::new();
    module
        .section(&types)
        .section(&declared)
        .section(&exports)
        .section(&code);
    module.finish()
}

/// Runs `program` with these settings of the compiler.
fn refuses(test: &Test<'_>, program: &[u8], settings: &str, words: &[&str]) -> Result<()> {
    let image = image_of(test, &name(program), "app.wasm", 0o755, program)?;
    let config = with_compiler(test, &own_compiler(test)?, settings);
    refused(test.run(&image).config(&config)?, words)?;
    no_compiler(test)?;
    nothing_kept(test)
}

fn nothing_kept(test: &Test<'_>) -> Result<()> {
    let kept: Vec<_> = fs::read_dir(test.dir().join("cache"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.ends_with(".aot"))
        .collect();
    ensure!(kept.is_empty(), "code that is not whole was kept: {kept:?}");
    Ok(())
}

/// One per content, as images are shared by tests.
fn name(program: &[u8]) -> String {
    format!("bomb-{}", program.len())
}

/// A compiler that is told from those of other tests by its path.
fn own_compiler(test: &Test<'_>) -> Result<String> {
    let path = test.dir().join("wisp");
    if !path.exists() {
        fs::hard_link(paths::wisp(), &path)
            .or_else(|_| fs::copy(paths::wisp(), &path).map(drop))?;
    }
    Ok(path.display().to_string())
}

/// The test's compilers and those who watch them.
fn compilers(test: &Test<'_>) -> Vec<Process> {
    let path = test.dir().join("wisp").display().to_string();
    processes::all()
        .into_iter()
        .filter(|process| process.line.starts_with(&path) && !process.is_zombie())
        .collect()
}

fn no_compiler(test: &Test<'_>) -> Result<()> {
    wait::until(PATIENCE, || compilers(test).is_empty().then_some(()))
        .with_context(|| format!("still there: {:?}", compilers(test)))
}

fn memory(test: &Test<'_>) -> Result<()> {
    refuses(
        test,
        &module(1, 7 * MIB),
        "memory_mib = 64\n",
        &[
            "/app.wasm",
            "more than 64 MiB of memory",
            "compiler.memory_mib",
        ],
    )
}

fn time(test: &Test<'_>) -> Result<()> {
    refuses(
        test,
        &module(10_000, 4096),
        "timeout_seconds = 1\n",
        &["/app.wasm", "within 1 s", "compiler.timeout_seconds"],
    )
}

fn size(test: &Test<'_>) -> Result<()> {
    refuses(
        test,
        &module(512, 4096),
        "max_program_mib = 1\n",
        &["/app.wasm", "larger than 1 MiB", "compiler.max_program_mib"],
    )
}

fn code(test: &Test<'_>) -> Result<()> {
    refuses(
        test,
        &module(300, 4096),
        "max_code_mib = 1\n",
        &["/app.wasm", "larger than 1 MiB", "compiler.max_code_mib"],
    )
}

/// A start under way whose compiler has long to go.
struct Compiling {
    id: String,
    ctr: Child,
    watcher: Process,
}

fn compiling(test: &Test<'_>, edit: impl FnOnce(&mut serde_json::Value)) -> Result<Compiling> {
    let program = module(10_000, 4096);
    let image = image_of(test, &name(&program), "app.wasm", 0o755, &program)?;
    let config = with_compiler(test, &own_compiler(test)?, "");
    let id = test.run(&image).config(&config)?.create_with(edit)?;
    let ctr = test
        .node
        .ctr(test.namespace())
        .args(["task", "start", &id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let watcher = wait::until(PATIENCE, || {
        let found = compilers(test);
        found
            .iter()
            .find(|watcher| {
                found
                    .iter()
                    .any(|other| other.parent() == Some(watcher.pid))
            })
            .cloned()
    });
    Ok(Compiling {
        id,
        ctr,
        watcher: watcher.context("nothing is compiled")?,
    })
}

impl Compiling {
    /// Once the compiler is gone: the start has failed and leaves nothing.
    fn ended(mut self, test: &Test<'_>) -> Result<()> {
        no_compiler(test)?;
        ensure!(!self.ctr.wait()?.success(), "the start succeeded");
        let removed = wait::until(PATIENCE, || {
            let _ = test.ctr(&["task", "rm", "-f", &self.id]);
            let said = test.ctr(&["container", "rm", &self.id]).ok()?;
            (said.code == 0).then_some(())
        });
        removed.context("the container cannot be removed")?;
        nothing_kept(test)
    }
}

fn others_go_on(test: &Test<'_>) -> Result<()> {
    let pod = "pod";
    test.know(pod);
    let member = |spec: &mut serde_json::Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into();
    };
    let busybox = test.busybox()?;
    let other = test
        .run(&busybox)
        .args(&["sleep", "1000"])
        .create_with(member)?;
    let other = Running::start(test, &other)?;
    let bomb = compiling(test, member)?;
    ensure!(shims(test).len() == 1, "not in one pod: {:?}", shims(test));
    let (status, pid, _) = test.api()?.state(&other.id)?;
    ensure!(
        status == Status::Running && pid == other.pid,
        "{status:?} {pid}"
    );
    // Another one of the pod starts, runs and ends.
    let third = test
        .run(&busybox)
        .args(&["echo", "hello"])
        .create_with(member)?;
    let ended = Running::start(test, &third)?.finish()?;
    ensure!(ended.code == 0 && ended.out() == "hello\n", "{ended:?}");
    ensure!(
        compilers(test).contains(&bomb.watcher),
        "it was over before: nothing is shown"
    );
    // The creator goes, and with it the compiler.
    let creator = bomb
        .watcher
        .parent()
        .context("the compiler has no parent")?;
    kill(Pid::from_raw(creator), Signal::SIGKILL)?;
    bomb.ended(test)?;
    let (status, ..) = test.api()?.state(&other.id)?;
    ensure!(status == Status::Running, "{status:?}");
    ensure!(other.end_by(Signal::SIGKILL)?.code == 137, "not 137");
    Ok(())
}

fn daemon_killed(test: &Test<'_>) -> Result<()> {
    let bomb = compiling(test, |_| {})?;
    let daemons = shims(test);
    ensure!(daemons.len() == 1, "{daemons:?}");
    kill(Pid::from_raw(daemons[0].pid), Signal::SIGKILL)?;
    bomb.ended(test)
}

fn given_up(test: &Test<'_>) -> Result<()> {
    let bomb = compiling(test, |_| {})?;
    kill(Pid::from_raw(i32::try_from(bomb.ctr.id())?), Signal::SIGINT)?;
    bomb.ended(test)
}
