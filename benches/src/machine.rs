//! What was measured on, and with what.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Facts for the report, as names and values.
pub fn facts(binaries: &Path, containerd: &Path) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("CPU", cpu()),
        ("memory", memory()),
        (
            "kernel",
            format!("{} {}", said("uname", &["-sr"]), said("uname", &["-m"])),
        ),
        ("control groups", control_groups().to_owned()),
        ("load before the run", load()),
        ("wisp", wisp(binaries)),
        ("benchmarks", format!("commit {}", commit())),
        (
            "Wasmtime (wisp, wasmtime and the runwasi peer)",
            "48.0.8".to_owned(),
        ),
        (
            "containerd",
            said(&containerd.display().to_string(), &["--version"]),
        ),
        ("runc", said("runc", &["--version"])),
        ("crun", said("crun", &["--version"])),
        (
            "containerd-shim-wasm (the runwasi peer)",
            "1.0.1".to_owned(),
        ),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// The first line of what a program says.
fn said(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .and_then(|output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().next().map(str::to_owned)
        })
        .unwrap_or_default()
}

fn cpu() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&info, "model name").unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let virtual_machine = if info.contains(" hypervisor") {
        ", in a virtual machine"
    } else {
        ""
    };
    format!("{model}, {cores} cores{virtual_machine}")
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

fn memory() -> String {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = field(&info, "MemTotal")
        .and_then(|value| value.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or_default();
    format!("{} GiB", kibibytes.div_ceil(1 << 20))
}

fn control_groups() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else {
        "v1"
    }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Binaries do not say of which commit they are.
fn wisp(binaries: &Path) -> String {
    let version = said(&binaries.join("wisp").display().to_string(), &["--version"]);
    format!("{version}, {}", binaries.display())
}

fn commit() -> String {
    let root = wisp_tests::paths::repository().display().to_string();
    said("git", &["-C", &root, "describe", "--always", "--dirty"])
}
