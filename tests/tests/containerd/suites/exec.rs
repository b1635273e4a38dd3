//! Exec: further processes in a container.

use super::Case;
use anyhow::{Context, Result, ensure};
use containerd_client::types::v1::Status;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use wisp_tests::api::{Exec, Streams};
use wisp_tests::events::Events;
use wisp_tests::fifo::{self, Reader};
use wisp_tests::oci::{Entry, Image};
use wisp_tests::run::{Ended, Running};
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Test, paths, processes, terminal};

pub fn cases() -> Vec<Case> {
    super::cases(
        "exec",
        &[
            (
                "a further guest has its own arguments, environment and code",
                guest,
            ),
            (
                "a further guest reads its own stdin to its end",
                guest_stdin,
            ),
            (
                "a further guest is in the container's namespaces and cgroup",
                joined,
            ),
            ("a further guest may do what the container may", granted),
            (
                "a further guest may be another file, also of a volume",
                other_file,
            ),
            ("a layer is executed by its title and no other name", layer),
            ("what is not there exits 127 and says what is", missing),
            (
                "a native program of a Wasm container has the image as its root",
                native,
            ),
            (
                "a native program of a Wasm container is confined as asked",
                confined,
            ),
            ("a native container executes programs", in_native),
            (
                "a native container says that it has no such program",
                in_native_missing,
            ),
            ("exec has a terminal", with_terminal),
            ("processes are listed with their exec ids", listed),
            ("exec is announced from added to exit", announced),
            (
                "executed processes end with their container",
                ends_with_container,
            ),
            (
                "an executed process is killed and its container goes on",
                killed,
            ),
            ("a failed exec leaves nothing behind", leaves_nothing),
            ("many execs at once all run and all go", many),
            ("ctr executes, with and without a terminal", by_ctr),
        ],
    )
}

/// A process that has been added, with its output.
struct Added<'c> {
    exec: Exec<'c>,
    stdout: Reader,
    stderr: Reader,
}

impl<'c> Added<'c> {
    fn new(test: &'c Test<'_>, id: &str, exec_id: &str, process: &Value) -> Result<Self> {
        Self::with_stdin(test, id, exec_id, process, String::new())
    }

    fn with_stdin(
        test: &'c Test<'_>,
        id: &str,
        exec_id: &str,
        process: &Value,
        stdin: String,
    ) -> Result<Self> {
        // An exec id may come again, a FIFO's name may not.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = |name: &str| test.dir().join(format!("{id}-{exec_id}-{count}-{name}"));
        let (stdout, stderr) = (
            Reader::new(&place("stdout"))?,
            Reader::new(&place("stderr"))?,
        );
        let exec = test.api()?.process(id, exec_id);
        let streams = Streams {
            stdin,
            stdout: stdout.path(),
            stderr: stderr.path(),
            terminal: false,
        };
        exec.add_with(process, &streams)?;
        Ok(Self {
            exec,
            stdout,
            stderr,
        })
    }

    fn finish(self) -> Result<Ended> {
        let code = self.exec.wait()?;
        let deleted = self.exec.delete()?;
        ensure!(code == deleted, "wait said {code}, delete {deleted}");
        Ok(Ended {
            code: i32::try_from(code)?,
            stdout: self.stdout.to_end(PATIENCE)?,
            stderr: self.stderr.to_end(PATIENCE)?,
        })
    }
}

fn process(args: &[&str]) -> Value {
    json!({
        "args": args,
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin", "ONLY=exec"],
        "user": { "uid": 0, "gid": 0 },
    })
}

/// Executes to the end.
fn execute(test: &Test<'_>, id: &str, exec_id: &str, process: &Value) -> Result<Ended> {
    let added = Added::new(test, id, exec_id, process)?;
    added.exec.start().inspect_err(|_| {
        let _ = added.exec.delete();
    })?;
    added.finish()
}

/// A guest that sleeps.
fn sleeping<'t, 'n>(test: &'t Test<'n>) -> Result<Running<'t, 'n>> {
    let image = test.image("tour")?;
    let running = test.run(&image).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    Ok(running)
}

/// An image with a Wasm program, a static busybox and what a native one needs.
fn mixed(test: &Test<'_>) -> Result<String> {
    let reference = test.built("mixed", |reference, output| {
        let tour = fs::read(paths::guest("tour")?)?;
        let hello = fs::read(paths::guest("hello")?)?;
        let busybox = fs::read("/bin/busybox")?;
        let mut entries = vec![
            Entry::Dir("bin"),
            Entry::Dir("dev"),
            Entry::Dir("proc"),
            Entry::Dir("work"),
            Entry::File("tour.wasm", 0o644, &tour),
            Entry::File("bin/hello.wasm", 0o644, &hello),
            Entry::File("bin/busybox", 0o755, &busybox),
        ];
        let links: Vec<String> = [
            "sh", "id", "cat", "ls", "pwd", "env", "grep", "mkdir", "sleep",
        ]
        .iter()
        .map(|name| format!("bin/{name}"))
        .collect();
        entries.extend(links.iter().map(|link| Entry::Link(link, "busybox")));
        Image::new(&["/tour.wasm"])
            .files(&entries)?
            .write(reference, false, output)
    })?;
    test.starts(&reference, "/tour.wasm");
    Ok(reference)
}

fn guest(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let id = running.id.clone();
    let ended = execute(
        test,
        &id,
        "args",
        &process(&["/tour.wasm", "args", "one", "two"]),
    )?;
    ensure!(ended.code == 0, "{ended:?}");
    ensure!(
        ended.out().contains("one") && ended.out().contains("two"),
        "{ended:?}"
    );
    let ended = execute(test, &id, "env", &process(&["/tour.wasm", "env"]))?;
    ensure!(ended.out().contains("ONLY=exec"), "{ended:?}");
    let mut elsewhere = process(&["/tour.wasm", "exit", "42"]);
    elsewhere["cwd"] = "/".into();
    ensure!(execute(test, &id, "code", &elsewhere)?.code == 42);
    let ended = execute(test, &id, "trap", &process(&["/tour.wasm", "trap"]))?;
    ensure!(
        ended.code == 134 && ended.err().contains("wasm"),
        "{ended:?}"
    );
    // The same exec id may be used again once it is deleted.
    ensure!(execute(test, &id, "code", &elsewhere)?.code == 42);
    ensure!(running.end_by(Signal::SIGTERM)?.code == 143, "not 143");
    Ok(())
}

fn guest_stdin(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let input: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let path = test.dir().join("typed");
    let mut stdin = fifo::writer(&path)?;
    let spec = process(&["/tour.wasm", "cat"]);
    let stdin_path = path.display().to_string();
    let added = Added::with_stdin(test, &running.id, "cat", &spec, stdin_path)?;
    added.exec.start()?;
    stdin.write_all(&input)?;
    drop(stdin);
    added.exec.close_stdin()?;
    let ended = added.finish()?;
    ensure!(
        ended.code == 0 && ended.stdout == input,
        "exited {}",
        ended.code
    );
    running.end_by(Signal::SIGKILL).map(drop)
}

fn namespaces(pid: u32) -> Result<Vec<String>> {
    ["mnt", "uts", "ipc", "pid", "net", "user"]
        .iter()
        .map(|name| {
            let link = fs::read_link(
                Path::new("/proc")
                    .join(pid.to_string())
                    .join("ns")
                    .join(name),
            )?;
            Ok(link.display().to_string())
        })
        .collect()
}

fn joined(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let added = Added::new(
        test,
        &running.id,
        "sleeper",
        &process(&["/tour.wasm", "sleep", "1000000"]),
    )?;
    let pid = added.exec.start()?;
    added.stdout.until("sleeping", PATIENCE)?;
    let first = namespaces(running.pid)?;
    ensure!(
        namespaces(pid)? == first,
        "{:?} are not {first:?}",
        namespaces(pid)?
    );
    let cgroups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    ensure!(cgroups(pid)? == cgroups(running.pid)?, "{}", cgroups(pid)?);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        ensure!(status.contains(line), "no {line} in {status}");
    }
    let root = |pid: u32| fs::metadata(format!("/proc/{pid}/root/rootfs/tour.wasm"));
    ensure!(root(pid).is_ok(), "it is not in the jail");
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| !link.to_string_lossy().starts_with("anon_inode"))
        .map(|link| link.display().to_string())
        .collect::<Vec<_>>();
    let foreign = |link: &&String| link.contains("pidfd") || link.contains("/proc");
    ensure!(!open.iter().any(|link| foreign(&link)), "{open:?}");
    added.exec.kill(Signal::SIGTERM as i32)?;
    ensure!(added.finish()?.code == 143, "not 143");
    running.end_by(Signal::SIGTERM).map(drop)
}

fn granted(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    for (access, code) in [("ro", 1), ("rw", 0)] {
        let running = test
            .run(&image)
            .annotation("io.wisp.fs.root", access)
            .args(&["sleep", "1000000"])
            .start()?;
        running.stdout.until("sleeping", PATIENCE)?;
        let write = process(&["/tour.wasm", "write", "/new", "text"]);
        let ended = execute(test, &running.id, "write", &write)?;
        ensure!(ended.code == code, "{access}: {ended:?}");
        // The environment is the exec's, and grants nothing.
        let mut connect = process(&["/tour.wasm", "tcp-connect", "127.0.0.1:1"]);
        connect["env"] = json!(["io.wisp.net.outbound=*"]);
        let ended = execute(test, &running.id, "connect", &connect)?;
        ensure!(ended.code == 1, "{access}: {ended:?}");
        running.end_by(Signal::SIGTERM)?;
    }
    Ok(())
}

fn other_file(test: &Test<'_>) -> Result<()> {
    let volume = test.dir().join("volume");
    fs::create_dir(&volume)?;
    fs::copy(paths::guest("hello-module")?, volume.join("probe.wasm"))?;
    let mount = format!(
        "type=bind,src={},dst=/volume,options=rbind:ro",
        volume.display()
    );
    let image = mixed(test)?;
    let running = test
        .run(&image)
        .flags(&["--mount", &mount])
        .args(&["sleep", "1000000"])
        .start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    for name in ["hello.wasm", "/bin/hello.wasm", "/volume/probe.wasm"] {
        let ended = execute(test, &running.id, "other", &process(&[name]))?;
        ensure!(
            ended.code == 0 && ended.out().contains("hello"),
            "{name}: {ended:?}"
        );
    }
    running.end_by(Signal::SIGTERM).map(drop)
}

fn layer(test: &Test<'_>) -> Result<()> {
    if !test.node.version().unpacks_wasm_layers() {
        return Ok(());
    }
    let reference = test.built("exec-layers", |reference, output| {
        let tour = fs::read(paths::guest("tour")?)?;
        let hello = fs::read(paths::guest("hello")?)?;
        Image::new(&["tour.wasm"])
            .files(&[Entry::Dir("data")])?
            .wasm("application/wasm", Some("tour.wasm"), tour)
            .wasm("application/wasm", Some("hello.wasm"), hello)
            .write(reference, false, output)
    })?;
    test.starts(&reference, "tour.wasm");
    let running = test.run(&reference).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let ended = execute(test, &running.id, "layer", &process(&["hello.wasm"]))?;
    ensure!(
        ended.code == 0 && ended.out().contains("hello"),
        "{ended:?}"
    );
    let ended = execute(
        test,
        &running.id,
        "own",
        &process(&["tour.wasm", "exit", "3"]),
    )?;
    ensure!(ended.code == 3, "{ended:?}");
    let ended = execute(test, &running.id, "none", &process(&["sh"]))?;
    ensure!(ended.code == 127, "{ended:?}");
    ensure!(ended.err().contains("hello.wasm"), "{ended:?}");
    running.end_by(Signal::SIGTERM).map(drop)
}

fn missing(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let ended = execute(test, &running.id, "sh", &process(&["sh", "-c", "true"]))?;
    ensure!(ended.code == 127 && ended.stdout.is_empty(), "{ended:?}");
    for part in ["\"sh\"", "/bin/sh", "WebAssembly", "/tour.wasm"] {
        ensure!(ended.err().contains(part), "no {part} in {}", ended.err());
    }
    ensure!(ended.err().lines().count() == 1, "{}", ended.err());
    running.end_by(Signal::SIGTERM).map(drop)
}

fn native(test: &Test<'_>) -> Result<()> {
    let image = mixed(test)?;
    let running = test.run(&image).args(&["sleep", "1000000"]).start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let mut spec = process(&[
        "sh",
        "-c",
        "pwd; ls /; echo $ONLY; echo x > /dev/null && echo null",
    ]);
    spec["cwd"] = "/work".into();
    let ended = execute(test, &running.id, "native", &spec)?;
    ensure!(ended.code == 0, "{ended:?}");
    let out = ended.out();
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "/work",
        "bin",
        "dev",
        "proc",
        "tour.wasm",
        "work",
        "exec",
        "null",
    ];
    ensure!(lines == expected, "{out}");
    // The jail is not to be found by going up.
    let up = process(&["sh", "-c", "cd /..; ls; ls /../../rootfs"]);
    let ended = execute(test, &running.id, "up", &up)?;
    ensure!(
        ended.code != 0 && !ended.out().contains("rootfs"),
        "{ended:?}"
    );
    ensure!(execute(test, &running.id, "code", &process(&["sh", "-c", "exit 9"]))?.code == 9);
    // The container's own processes are in sight, what the spec masks is not.
    let see = "cat /proc/1/comm; cat /proc/kcore; echo 1 > /proc/sys/kernel/panic";
    let ended = execute(test, &running.id, "proc", &process(&["sh", "-c", see]))?;
    ensure!(ended.out().lines().count() == 1, "{ended:?}");
    ensure!(ended.err().contains("Read-only file system"), "{ended:?}");
    let mut nowhere = process(&["sh"]);
    nowhere["cwd"] = "/nowhere".into();
    let error = execute(test, &running.id, "nowhere", &nowhere)
        .err()
        .context("started")?;
    ensure!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    running.end_by(Signal::SIGTERM).map(drop)
}

fn confined(test: &Test<'_>) -> Result<()> {
    let image = mixed(test)?;
    let profile = test.file(
        "exec-seccomp.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
    )?;
    let profile = profile.display().to_string();
    let running = test
        .run(&image)
        .flags(&["--seccomp", "--seccomp-profile", &profile])
        .annotation("io.wisp.fs.root", "rw")
        .args(&["sleep", "1000000"])
        .start()?;
    running.stdout.until("sleeping", PATIENCE)?;
    let mut spec = process(&["sh", "-c", "id -u; id -g; id -G; sleep 1000"]);
    spec["user"] = json!({ "uid": 1000, "gid": 2000, "additionalGids": [3000] });
    spec["noNewPrivileges"] = true.into();
    spec["capabilities"] = json!({
        "bounding": ["CAP_NET_RAW"], "effective": [], "permitted": [], "inheritable": []
    });
    spec["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 77, "soft": 66 }]);
    let added = Added::new(test, &running.id, "user", &spec)?;
    let pid = added.exec.start()?;
    added.stdout.until("1000\n2000\n2000 3000\n", PATIENCE)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000002000",
        "NoNewPrivs:\t1",
    ] {
        ensure!(status.contains(line), "no {line} in {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.context("limits")?.split_whitespace().collect();
    ensure!(files.contains(&"66") && files.contains(&"77"), "{files:?}");
    added.exec.kill(Signal::SIGKILL as i32)?;
    ensure!(added.finish()?.code == 137, "not 137");
    let ended = execute(
        test,
        &running.id,
        "mkdir",
        &process(&["mkdir", "/work/new"]),
    )?;
    ensure!(
        ended.code != 0 && ended.err().contains("not supported"),
        "{ended:?}"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn in_native(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    let mut spec = process(&[
        "sh",
        "-c",
        "echo $ONLY; pwd; id -u; cat; echo err >&2; exit 5",
    ]);
    spec["cwd"] = "/tmp".into();
    spec["user"] = json!({ "uid": 1000, "gid": 1000 });
    let ended = execute(test, &running.id, "sh", &spec)?;
    ensure!(ended.code == 5, "{ended:?}");
    ensure!(
        ended.out() == "exec\n/tmp\n1000\n" && ended.err() == "err\n",
        "{ended:?}"
    );
    let sleeper = Added::new(test, &running.id, "sleep", &process(&["sleep", "1000"]))?;
    let pid = sleeper.exec.start()?;
    ensure!(
        namespaces(pid)? == namespaces(running.pid)?,
        "other namespaces"
    );
    sleeper.exec.kill(Signal::SIGKILL as i32)?;
    ensure!(sleeper.finish()?.code == 137, "not 137");
    running.end_by(Signal::SIGKILL).map(drop)
}

fn in_native_missing(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let running = test.run(&image).args(&["sleep", "1000"]).start()?;
    let error = execute(test, &running.id, "none", &process(&["no-such-program"]))
        .err()
        .context("it started")?;
    ensure!(
        format!("{error:#}").contains("no-such-program"),
        "{error:#}"
    );
    // What is left of it does not keep the container from executing.
    ensure!(execute(test, &running.id, "none", &process(&["true"]))?.code == 0);
    running.end_by(Signal::SIGKILL).map(drop)
}

fn with_terminal(test: &Test<'_>) -> Result<()> {
    let native_image = test.busybox()?;
    let native = test.run(&native_image).args(&["sleep", "1000"]).start()?;
    let wasm_image = mixed(test)?;
    let wasm = test.run(&wasm_image).args(&["sleep", "1000000"]).start()?;
    wasm.stdout.until("sleeping", PATIENCE)?;
    let shell = [
        "sh",
        "-c",
        "test -t 0 && stty size; read line; echo got $line; stty size",
    ];
    let busybox = [
        "busybox",
        "sh",
        "-c",
        "test -t 0 && busybox stty size; read line; \
                    echo got $line; busybox stty size",
    ];
    for (id, args) in [(&native.id, &shell[..]), (&wasm.id, &busybox[..])] {
        let stdin = test.dir().join(format!("{id}-keys"));
        let mut keys = fifo::writer(&stdin)?;
        let screen = Reader::new(&test.dir().join(format!("{id}-screen")))?;
        let exec = test.api()?.process(id, "tty");
        let streams = Streams {
            stdin: stdin.display().to_string(),
            stdout: screen.path(),
            terminal: true,
            ..Streams::default()
        };
        let mut spec = process(args);
        spec["consoleSize"] = json!({ "height": 30, "width": 100 });
        exec.add_with(&spec, &streams)?;
        exec.start()?;
        screen.until("30 100", PATIENCE)?;
        exec.resize(132, 43)?;
        keys.write_all(b"word\n")?;
        ensure!(exec.wait()? == 0, "not 0");
        let text = screen.to_end(PATIENCE)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(
            text.contains("got word") && text.contains("43 132"),
            "{text:?}"
        );
        exec.delete()?;
    }
    wasm.end_by(Signal::SIGTERM)?;
    native.end_by(Signal::SIGKILL).map(drop)
}

fn listed(test: &Test<'_>) -> Result<()> {
    let native_image = test.busybox()?;
    let native = test.run(&native_image).args(&["sleep", "1000"]).start()?;
    let wasm = sleeping(test)?;
    let sleep: [(&Running<'_, '_>, &[&str]); 2] = [
        (&native, &["sleep", "1000"]),
        (&wasm, &["/tour.wasm", "sleep", "1000000"]),
    ];
    for (running, args) in sleep {
        let added = Added::new(test, &running.id, "second", &process(args))?;
        let state = added.exec.state()?;
        ensure!(state == (Status::Created, 0, 0), "{state:?}");
        let pid = added.exec.start()?;
        let state = added.exec.state()?;
        ensure!(state == (Status::Running, pid, 0), "{state:?}");
        let mut seen = test.api()?.processes(&running.id)?;
        seen.sort();
        let mut expected = vec![(running.pid, None), (pid, Some("second".to_owned()))];
        expected.sort();
        ensure!(seen == expected, "{seen:?}");
        added.exec.kill(Signal::SIGKILL as i32)?;
        added.exec.wait()?;
        let (status, _, code) = added.exec.state()?;
        ensure!(
            (status, code) == (Status::Stopped, 137),
            "{status:?} {code}"
        );
        added.finish()?;
    }
    wasm.end_by(Signal::SIGTERM)?;
    native.end_by(Signal::SIGKILL).map(drop)
}

fn announced(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let events = Events::subscribe(test.node, test.namespace())?;
    let spec = process(&["/tour.wasm", "exit", "7"]);
    let added = Added::new(test, &running.id, "seven", &spec)?;
    let pid = added.exec.start()?;
    ensure!(added.finish()?.code == 7, "not 7");
    let id = running.id.clone();
    running.end_by(Signal::SIGTERM)?;
    let seen = events.until_deleted(&id)?;
    let told: Vec<_> = seen
        .iter()
        .map(|event| (event.topic.as_str(), event.exec.as_str(), event.exit))
        .collect();
    let expected = [
        ("/tasks/exec-added", "seven", None),
        ("/tasks/exec-started", "seven", None),
        ("/tasks/exit", "seven", Some(7)),
        ("/tasks/exit", "", Some(143)),
        ("/tasks/delete", "", Some(143)),
    ];
    ensure!(told == expected, "{seen:#?}");
    ensure!(seen[1].pid == pid && seen[2].pid == pid, "{seen:#?}");
    Ok(())
}

fn ends_with_container(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    for shared in [false, true] {
        let id = test
            .run(&image)
            .args(&["sleep", "1000000"])
            .create_with(|spec| {
                if let (true, Some(namespaces)) =
                    (shared, spec["linux"]["namespaces"].as_array_mut())
                {
                    namespaces.retain(|namespace| namespace["type"] != "pid");
                }
            })?;
        let running = Running::start(test, &id)?;
        let spec = process(&["/tour.wasm", "spin"]);
        let added = Added::new(test, &id, "spin", &spec)?;
        let pid = added.exec.start()?;
        running.kill(Signal::SIGKILL)?;
        ensure!(running.wait()? == 137, "not 137");
        ensure!(added.exec.wait()? == 137, "shared {shared}: not 137");
        ensure!(
            !processes::all().iter().any(|p| p.pid.unsigned_abs() == pid),
            "shared {shared}: it outlives its container"
        );
        // Its record goes with the task, deleted or not.
        running.finish()?;
    }
    Ok(())
}

fn killed(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let added = Added::new(test, &running.id, "spin", &process(&["/tour.wasm", "spin"]))?;
    ensure!(added.exec.kill(9).is_err(), "killed before its start");
    added.exec.start()?;
    ensure!(added.exec.delete().is_err(), "deleted while it runs");
    ensure!(added.exec.start().is_err(), "started twice");
    added.exec.kill(Signal::SIGTERM as i32)?;
    ensure!(added.exec.wait()? == 143, "not 143");
    ensure!(added.exec.kill(9).is_err(), "killed after its end");
    added.finish()?;
    ensure!(
        test.api()?.state(&running.id)?.0 == Status::Running,
        "the container ended"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn leaves_nothing(test: &Test<'_>) -> Result<()> {
    let image = mixed(test)?;
    let wasm = test.run(&image).args(&["sleep", "1000000"]).start()?;
    wasm.stdout.until("sleeping", PATIENCE)?;
    let native_image = test.busybox()?;
    let native = test.run(&native_image).args(&["sleep", "1000"]).start()?;
    for running in [&wasm, &native] {
        let before = test.api()?.pids(&running.id)?;
        let mut nowhere = process(&["sh"]);
        nowhere["cwd"] = "/nowhere".into();
        for round in 0..3 {
            let failed = execute(test, &running.id, "failing", &nowhere);
            ensure!(failed.is_err(), "round {round}: it started");
        }
        let after = wait::until(PATIENCE, || {
            test.api()
                .ok()?
                .pids(&running.id)
                .ok()
                .filter(|pids| *pids == before)
        });
        ensure!(
            after.is_some(),
            "{:?} are not {before:?}",
            test.api()?.pids(&running.id)?
        );
        let bundle = processes::concerning(test.namespace());
        ensure!(
            !bundle.iter().any(|process| process.line.contains(" exec ")),
            "{bundle:?}"
        );
    }
    wasm.end_by(Signal::SIGTERM)?;
    native.end_by(Signal::SIGKILL).map(drop)
}

fn many(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let mut added = Vec::new();
    for number in 0..10 {
        let code = number.to_string();
        let spec = process(&["/tour.wasm", "exit", &code]);
        let exec = Added::new(test, &running.id, &format!("exec{number}"), &spec)?;
        exec.exec.start()?;
        added.push((number, exec));
    }
    for (number, exec) in added {
        ensure!(exec.finish()?.code == number, "{number}");
    }
    ensure!(
        test.api()?.pids(&running.id)? == [running.pid],
        "some are left"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}

fn by_ctr(test: &Test<'_>) -> Result<()> {
    let running = sleeping(test)?;
    let dir = test.dir().display().to_string();
    let base = ["task", "exec", "--fifo-dir", &dir, "--exec-id"];
    let plain = [&base[..], &["e1", &running.id, "/tour.wasm", "exit", "4"]].concat();
    ensure!(test.ctr(&plain)?.code == 4, "{:?}", test.ctr(&plain)?);
    let mut ctr = test.node.ctr(test.namespace());
    ctr.args(base);
    ctr.args(["e2", "--tty", &running.id, "/tour.wasm", "terminal"]);
    let (code, screen) = terminal::run(ctr, PATIENCE)?;
    ensure!(
        code == 0 && screen.contains("stdin yes"),
        "{code}: {screen}"
    );
    running.end_by(Signal::SIGTERM).map(drop)
}
