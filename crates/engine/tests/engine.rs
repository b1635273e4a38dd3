//! The engine in a process of its own (the example `engine`), with programs
//! written out as text. Programs made by real toolchains are run by the suites
//! in `tests/`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use tempfile::TempDir;

/// A module whose `_start` has `body`, with the imports a test needs.
fn module(body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          {body})"#
    )
}

/// A component whose `run` gives ok (0) or an error (1).
fn component(interface: &str, result: i32) -> String {
    format!(
        r#"(component
          (core module $m (func (export "run") (result i32) i32.const {result}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $interface (export "run" (func $run)))
          (export "{interface}" (instance $interface)))"#
    )
}

/// Answers no request: it traps.
const TRAPPING_SERVER: &str = r#"(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $m (func $boom (export "handle") (param i32 i32) unreachable))
  (core instance $i (instantiate $m))
  (func $handle
    (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $i "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

struct Program {
    dir: TempDir,
}

impl Program {
    fn new(text: &str) -> Self {
        let dir = TempDir::new().expect("dir");
        let bytes = wat::parse_str(text).expect("valid text");
        std::fs::write(dir.path().join("app.wasm"), bytes).expect("write");
        Self { dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(engine());
        command.arg(self.dir.path().join("app.wasm"));
        command
    }

    fn run(&self) -> Output {
        self.command().output().expect("run the engine")
    }

    /// Starts it and waits until it is ready.
    fn start(&self, args: &[&str]) -> Running {
        let mut child = self
            .command()
            .args(args)
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the engine");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            let length = stderr.read_line(&mut line).expect("stderr");
            assert_ne!(length, 0, "the engine ended before it was ready");
        }
        Running { child, stderr }
    }
}

/// Killed when dropped, so that a test that fails leaves nothing.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes no pointers; the child is ours and not reaped.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().expect("wait").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds the examples before the tests run.
fn engine() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    let target = test.parent().and_then(Path::parent).expect("target");
    target.join("examples/engine")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}

fn get(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream
        .write_all(b"GET /path HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receive");
    answer
}

#[test]
fn a_module_exits_with_the_code_it_gives() {
    for code in [0, 1, 7, 125, 126, 200, 255] {
        let body = format!(r#"(func (export "_start") (call $exit (i32.const {code})))"#);
        assert_eq!(Program::new(&module(&body)).run().status.code(), Some(code));
    }
    let returns = r#"(func (export "_start"))"#;
    assert_eq!(Program::new(&module(returns)).run().status.code(), Some(0));
}

#[test]
fn a_component_that_returns_an_error_exits_with_1() {
    for result in [0, 1] {
        let output = Program::new(&component("wasi:cli/run@0.2.0", result)).run();
        assert_eq!(output.status.code(), Some(result), "{}", stderr(&output));
    }
}

#[test]
fn a_trap_exits_with_134_and_tells_where() {
    for (body, reason) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const -8)))", "out of bounds"),
        (
            "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            "divide by zero",
        ),
        ("(call $inner)", "call stack exhausted"),
    ] {
        let body = format!(
            r#"(func $inner {body})
               (func $outer (export "_start") (call $inner))"#
        );
        let output = Program::new(&module(&body)).run();
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(134), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
        assert!(stderr.contains("!inner"), "{stderr}");
    }
}

#[test]
fn an_import_that_nobody_provides_is_named() {
    let output =
        Program::new(r#"(module (import "acme" "launch" (func)) (func (export "_start")))"#).run();
    let text = stderr(&output);
    assert!(text.contains("acme::launch"), "{text}");
    let output = Program::new(&component("wasi:cli/run@0.2.0", 0).replacen(
        "(component",
        r#"(component (import "acme:rocket/pad@1.0.0" (instance (export "launch" (func))))"#,
        1,
    ))
    .run();
    let text = stderr(&output);
    assert!(text.contains("acme:rocket/pad@1.0.0"), "{text}");
}

#[test]
fn another_world_is_refused_with_what_it_exports() {
    let output = Program::new(&component("acme:machine/run@1.0.0", 0)).run();
    let text = stderr(&output);
    assert!(text.contains("acme:machine/run@1.0.0"), "{text}");
    assert!(text.contains("wasi:cli/run"), "{text}");
}

#[test]
fn a_signal_ends_a_command_that_never_gives_the_thread_back() {
    let program = Program::new(&module(r#"(func (export "_start") (loop (br 0)))"#));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let running = program.start(&[]);
        running.signal(signal);
        assert_eq!(running.code(), Some(128 + signal));
    }
    let mut running = program.start(&[]);
    running.signal(libc::SIGKILL);
    let status = running.child.wait().expect("wait");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[test]
fn a_server_outlives_a_handler_that_traps() {
    let address = free_address();
    let listen = format!("io.wisp.http.listen={address}");
    let mut running = Program::new(TRAPPING_SERVER).start(&["--annotation", &listen]);
    for _ in 0..2 {
        let answer = get(&address);
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        let mut told = String::new();
        while !told.contains("unreachable") {
            let length = running.stderr.read_line(&mut told).expect("stderr");
            assert_ne!(length, 0, "{told}");
        }
        assert!(told.contains("GET /path"), "{told}");
        assert!(told.contains("!boom"), "{told}");
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.code(), Some(0));
}

#[test]
fn a_port_in_use_is_the_reason_why_a_server_is_not_ready() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address").to_string();
    let output = Program::new(TRAPPING_SERVER)
        .command()
        .args(["--annotation", &format!("io.wisp.http.listen={address}")])
        .output()
        .expect("run the engine");
    let text = stderr(&output);
    assert!(text.contains("not ready"), "{text}");
    assert!(text.contains(&address), "{text}");
    assert!(text.contains("address in use"), "{text}");
    assert!(!output.status.success());
}

#[test]
fn a_preopen_that_is_not_there_is_the_reason_why_a_command_is_not_ready() {
    let program = Program::new(&module(r#"(func (export "_start"))"#));
    let output = program
        .command()
        .args(["--dir", "/nowhere/at/all:/data"])
        .output()
        .expect("run the engine");
    let text = stderr(&output);
    assert!(text.contains("not ready"), "{text}");
    assert!(text.contains("/nowhere/at/all"), "{text}");
    assert_eq!(output.status.code(), Some(125), "{text}");
}

/// Grows its memory by 1 MiB pages until it is refused, and traps if that was
/// not after as many MiB as there are in `expected`.
fn grower(expected: i32) -> Program {
    let body = format!(
        r#"(func (export "_start") (local $mib i32)
             (loop $again
               (if (i32.ne (memory.grow (i32.const 16)) (i32.const -1))
                 (then
                   (local.set $mib (i32.add (local.get $mib) (i32.const 1)))
                   (br $again))))
             (if (i32.ne (local.get $mib) (i32.const {expected})) (then unreachable)))"#
    );
    Program::new(&module(&body))
}

#[test]
fn a_guest_without_room_is_told_so_by_its_own_instruction() {
    // 32 MiB less 6 MiB for the host, of which the first page is 64 KiB.
    let output = grower(25).command().args(["--limit", "33554432"]).output();
    let output = output.expect("run the engine");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("limit"), "{}", stderr(&output));
}

#[test]
fn a_guest_that_dies_of_its_limit_says_which_and_how_to_raise_it() {
    let run = |args: &[&str]| {
        let output = grower(1000).command().args(args).output();
        let output = output.expect("run the engine");
        assert_eq!(output.status.code(), Some(134), "{}", stderr(&output));
        stderr(&output)
    };
    let text = run(&["--limit", "33554432"]);
    assert!(text.contains("the memory limit was reached"), "{text}");
    assert!(text.contains("26 MiB") && text.contains("32 MiB"), "{text}");
    let text = run(&["--annotation", "io.wisp.memory.max=8Mi"]);
    assert!(
        text.contains("8 MiB by the annotation io.wisp.memory.max"),
        "{text}"
    );
    let text = run(&["--annotation", "io.wisp.memory.instance-max=4Mi"]);
    assert!(text.contains("an instance's memory limit"), "{text}");
}

#[test]
fn a_raised_limit_is_seen_by_a_guest_that_runs() {
    let dir = TempDir::new().expect("dir");
    let file = dir.path().join("memory.max");
    std::fs::write(&file, "67108864\n").expect("write");
    let output = grower(55)
        .command()
        .args(["--limit", "33554432", "--limit-file"])
        .arg(&file)
        .output()
        .expect("run the engine");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_guest_that_cannot_even_begin_within_its_limit_says_so() {
    let large = Program::new(&module("(memory 1000) (func (export \"_start\"))"));
    let output = large.command().args(["--limit", "33554432"]).output();
    let text = stderr(&output.expect("run the engine"));
    assert!(text.contains("the memory limit was reached"), "{text}");
    let table = r#"(table 4000000 funcref) (func (export "_start"))"#;
    let table = Program::new(&module(table));
    let output = table.command().args(["--limit", "33554432"]).output();
    let text = stderr(&output.expect("run the engine"));
    assert!(text.contains("the memory limit was reached"), "{text}");
}

#[test]
fn memory_that_no_limiter_sees_is_not_to_be_had() {
    let shared = r#"(module (memory 1 60000 shared) (func (export "_start")))"#;
    let output = Program::new(shared).run();
    assert!(!output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_component_of_too_many_instances_is_not_run() {
    // No component may have that many itself; those in it have theirs.
    let many = "(core instance (instantiate $m))".repeat(600);
    let run = |count: usize| {
        let text = component("wasi:cli/run@0.2.0", 0).replacen(
            "(component",
            &format!(
                "(component (component $many (core module $m) {many}) {}",
                "(instance (instantiate $many))".repeat(count)
            ),
            1,
        );
        let output = Program::new(&text).run();
        (output.status.code(), stderr(&output))
    };
    let (code, told) = run(1);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run(2);
    assert_eq!(code, Some(134), "{told}");
    assert!(told.contains("instance"), "{told}");
}

#[test]
fn random_bytes_beyond_bounds_are_a_trap() {
    let body = r#"(func (export "_start")
        (drop (memory.grow (i32.const 100)))
        (drop (call $random (i32.const 0) (i32.const LENGTH))))"#;
    let run = |length: &str| {
        let text = module(&body.replace("LENGTH", length)).replacen(
            "(memory",
            r#"(import "wasi_snapshot_preview1" "random_get"
                 (func $random (param i32 i32) (result i32)))
               (memory"#,
            1,
        );
        let output = Program::new(&text)
            .command()
            .args(["--limit", "33554432"])
            .output();
        output.expect("run the engine")
    };
    let output = run("3145728");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = run("3145729");
    assert_eq!(output.status.code(), Some(134), "{}", stderr(&output));
}

#[test]
fn a_server_without_room_for_an_instance_says_so_and_goes_on() {
    let address = free_address();
    let listen = format!("io.wisp.http.listen={address}");
    let memory = TRAPPING_SERVER.replacen("(core module $m ", "(core module $m (memory 500) ", 1);
    let mut running =
        Program::new(&memory).start(&["--limit", "33554432", "--annotation", &listen]);
    for _ in 0..2 {
        let answer = get(&address);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let mut told = String::new();
        while !told.contains("the memory limit was reached") {
            let length = running.stderr.read_line(&mut told).expect("stderr");
            assert_ne!(length, 0, "{told}");
        }
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.code(), Some(0));
}
