//! Containers in scopes that systemd makes, which is what kubelets ask for.
//! Only where systemd runs the machine and cgroups are of version 2.

use super::Case;
use super::cgroups::{GREEDY, limits, limits_hold, other_devices, reads_no_other_device};
use super::lifecycle::shims;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use wisp_tests::Test;
use wisp_tests::events::Events;
use wisp_tests::run::Running;
use wisp_tests::wait::{self, PATIENCE};
use wisp_tests::{Run, cgroups, command};

pub fn cases() -> Vec<Case> {
    if !cgroups::systemd() {
        return Vec::new();
    }
    super::cases(
        "systemd",
        &[
            ("a native container is a scope with its limits", native),
            ("a guest is a scope with its limits", wasm),
            ("an update changes what it names, and lasts", updated),
            ("a scope can be paused and measured", paused),
            ("SIGTERM ends a guest with 143", terminated),
            ("killing all reaches a grandchild", kill_all),
            ("a scope goes even if its memory ran out", out_of_memory),
            ("a task killed before its start leaves no scope", unstarted),
            ("a program that cannot run leaves no scope", refused),
            ("a scope goes when its shim was killed", shim_killed),
            ("a program gets no way to systemd", descriptors),
            (
                "a pod's shim has no more descriptors after many containers",
                many,
            ),
            ("the same name can be used again at once", again),
            (
                "a native container reads no device but those it was given",
                devices,
            ),
        ],
    )
}

/// The slice of all containers here, of a name that nests.
const SLICE: &str = "wisptests-pod1.slice";
const SLICE_DIRECTORY: &str = "/sys/fs/cgroup/wisptests.slice/wisptests-pod1.slice";

/// Creates the container in a scope of its own.
fn scoped(test: &Test<'_>, run: Run<'_, '_>, edit: impl FnOnce(&mut Value)) -> Result<String> {
    let prefix = test.namespace().to_owned();
    let id = run.create()?;
    let name = id.clone();
    test.api()?.edit_spec(&id, |spec| {
        spec["linux"]["cgroupsPath"] = format!("{SLICE}:{prefix}:{name}").into();
        edit(spec);
    })?;
    Ok(id)
}

fn unit(test: &Test<'_>, id: &str) -> String {
    format!("{}-{id}.scope", test.namespace())
}

fn directory(test: &Test<'_>, id: &str) -> PathBuf {
    PathBuf::from(SLICE_DIRECTORY).join(unit(test, id))
}

fn systemctl(args: &[&str]) -> Result<String> {
    let ended = command::run(
        Command::new("systemctl").args(args),
        Vec::new(),
        wait::PATIENCE,
    )?;
    Ok(ended.out().trim().to_owned())
}

/// Whether systemd knows the unit, in whatever state.
fn is_known(unit: &str) -> Result<bool> {
    let units = systemctl(&["list-units", "--all", "--plain", "--no-legend", unit])?;
    Ok(!units.is_empty())
}

/// systemd forgets a unit a moment after its end, and says nothing about it.
fn is_gone(test: &Test<'_>, id: &str) -> Result<()> {
    let unit = unit(test, id);
    let directory = directory(test, id);
    ensure!(
        !directory.exists(),
        "{} outlives its container",
        directory.display()
    );
    let gone = wait::until(PATIENCE, || {
        is_known(&unit).is_ok_and(|known| !known).then_some(())
    });
    gone.with_context(|| format!("{unit} is still there: {:?}", systemctl(&["status", &unit])))
}

fn native(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let run = test.run(&image).args(&["sleep", "1000"]);
    let id = scoped(test, run, |spec| spec["linux"]["resources"] = limits())?;
    is_a_scope(test, Running::start(test, &id)?)
}

fn wasm(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let run = test.run(&image).args(&["sleep", "1000000"]);
    let id = scoped(test, run, |spec| spec["linux"]["resources"] = limits())?;
    let running = Running::start(test, &id)?;
    running.stdout.until("sleeping", PATIENCE)?;
    is_a_scope(test, running)
}

fn is_a_scope(test: &Test<'_>, running: Running<'_, '_>) -> Result<()> {
    let id = running.id.clone();
    let unit = unit(test, &id);
    let group = cgroups::of(running.pid, "memory")?;
    ensure!(
        group == directory(test, &id),
        "the cgroup is {}",
        group.display()
    );
    limits_hold(running.pid)?;
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", SLICE),
        ("Delegate", "yes"),
        ("MemoryMax", "67108864"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("TasksMax", "33"),
    ] {
        let found = systemctl(&["show", "--value", "--property", property, &unit])?;
        ensure!(found == value, "{property} is {found:?}, not {value:?}");
    }
    ensure!(
        test.api()?.pids(&id)? == [running.pid],
        "{:?}",
        test.api()?.pids(&id)?
    );
    // systemd reads its files again and writes properties anew.
    systemctl(&["daemon-reload"])?;
    limits_hold(running.pid)?;
    running.end_by(Signal::SIGKILL)?;
    is_gone(test, &id)
}

fn updated(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let run = test.run(&image).args(&["sleep", "1000"]);
    let id = scoped(test, run, |spec| spec["linux"]["resources"] = limits())?;
    let running = Running::start(test, &id)?;
    let update = json!({ "memory": { "limit": 96 << 20 }, "cpu": { "shares": 2048 } });
    test.api()?.update(&id, &update)?;
    let group = directory(test, &id);
    let values = || -> Result<Vec<String>> {
        ["memory.max", "cpu.max", "cpu.weight", "pids.max"]
            .iter()
            .map(|file| {
                let text = fs::read_to_string(group.join(file)).context(*file)?;
                Ok(text.trim().to_owned())
            })
            .collect()
    };
    let now = values()?;
    ensure!(
        now[0] == "100663296" && now[1] == "50000 100000" && now[3] == "33",
        "{now:?}"
    );
    let weight: u32 = now[2].parse()?;
    ensure!(weight > 70, "2048 shares became {weight}");
    systemctl(&["daemon-reload"])?;
    ensure!(values()? == now, "{now:?} became {:?}", values()?);
    running.end_by(Signal::SIGKILL)?;
    is_gone(test, &id)
}

fn paused(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = scoped(test, test.run(&image).args(&["sleep", "1000"]), |_| ())?;
    let running = Running::start(test, &id)?;
    let api = test.api()?;
    api.pause(&id)?;
    let frozen = directory(test, &id).join("cgroup.freeze");
    ensure!(fs::read_to_string(&frozen)?.trim() == "1", "it runs");
    let metrics = api.metrics(&id)?;
    ensure!(
        metrics.type_url.contains("cgroups.v2") && !metrics.value.is_empty(),
        "{metrics:?}"
    );
    api.resume(&id)?;
    ensure!(
        fs::read_to_string(&frozen)?.trim() == "0",
        "it does not run"
    );
    running.end_by(Signal::SIGKILL)?;
    is_gone(test, &id)
}

fn terminated(test: &Test<'_>) -> Result<()> {
    for guest in ["tour", "tour-module"] {
        let image = test.image(guest)?;
        let id = scoped(test, test.run(&image).args(&["spin"]), |_| ())?;
        let running = Running::start(test, &id)?;
        running.stdout.until("spinning", PATIENCE)?;
        let ended = running.end_by(Signal::SIGTERM)?;
        ensure!(ended.code == 143, "{guest}: {ended:?}");
        is_gone(test, &id)?;
    }
    Ok(())
}

fn kill_all(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let run = test
        .run(&image)
        .args(&["sh", "-c", "sleep 1000 & echo started; wait"]);
    let id = scoped(test, run, |spec| {
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "pid");
        }
    })?;
    let running = Running::start(test, &id)?;
    running.stdout.until("started", PATIENCE)?;
    let pids = test.api()?.pids(&id)?;
    ensure!(pids.len() == 2, "{pids:?}");
    test.api()?.kill(&id, Signal::SIGKILL as i32, true)?;
    ensure!(running.finish()?.code == 137, "not 137");
    is_gone(test, &id)
}

fn out_of_memory(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = scoped(test, test.run(&image).args(&GREEDY), |spec| {
        spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    })?;
    let ended = Running::start(test, &id)?.finish()?;
    ensure!(ended.out() != "50331648\n", "nobody was killed: {ended:?}");
    is_gone(test, &id)
}

fn unstarted(test: &Test<'_>) -> Result<()> {
    let image = test.image("tour")?;
    let id = scoped(test, test.run(&image).args(&["sleep", "1000000"]), |_| ())?;
    let api = test.api()?;
    api.create(&id, &wisp_tests::api::Streams::default())?;
    ensure!(directory(test, &id).exists(), "created without a scope");
    api.kill(&id, Signal::SIGKILL as i32, false)?;
    ensure!(api.wait(&id)? == 137, "not 137");
    api.delete(&id)?;
    test.ctr_ok(&["container", "rm", &id])?;
    is_gone(test, &id)
}

fn refused(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    // Found to be no program only inside the container.
    let id = scoped(test, test.run(&image).args(&["/etc/none"]), |_| ())?;
    ensure!(Running::start(test, &id).is_err(), "it runs");
    is_gone(test, &id)?;
    // Refused by systemd: nothing may be left of what was there until then.
    for (image, args) in [
        (image, ["sleep", "1000"]),
        (test.image("tour")?, ["sleep", "1000000"]),
    ] {
        let id = scoped(test, test.run(&image).args(&args), |spec| {
            spec["linux"]["cgroupsPath"] = "no slice:a:b".into();
        })?;
        let error = Running::start(test, &id).err().context("it runs")?;
        ensure!(format!("{error:#}").contains("no slice"), "{error:#}");
    }
    Ok(())
}

fn shim_killed(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = scoped(test, test.run(&image).args(&["sleep", "1000"]), |_| ())?;
    let _running = Running::start(test, &id)?;
    let shims = shims(test);
    ensure!(shims.len() == 1, "{shims:?}");
    let events = Events::subscribe(test.node, test.namespace())?;
    kill(Pid::from_raw(shims[0].pid), Signal::SIGKILL)?;
    events.until_deleted(&id)?;
    let removed = wait::until(PATIENCE, || {
        let _ = test.ctr(&["task", "rm", "-f", &id]);
        let said = test.ctr(&["container", "rm", &id]).ok()?;
        (said.code == 0).then_some(())
    });
    removed.context("the container cannot be removed")?;
    is_gone(test, &id)
}

fn descriptors(test: &Test<'_>) -> Result<()> {
    for (image, args) in [
        (test.busybox()?, &["sh", "-c", "echo sleeping; sleep 1000"]),
        (test.image("tour")?, &["sleep", "1000000", "-"]),
    ] {
        let run = test.run(&image).args(args);
        let plain = run.clone().start()?;
        let id = scoped(test, run, |_| ())?;
        let scoped = Running::start(test, &id)?;
        let mut numbers = Vec::new();
        for running in [plain, scoped] {
            running.stdout.until("sleeping", PATIENCE)?;
            let open = open(running.pid)?;
            let all: BTreeSet<u32> = open.iter().map(|(number, _)| *number).collect();
            numbers.push((all, open));
            running.end_by(Signal::SIGKILL)?;
        }
        ensure!(
            numbers[0].0 == numbers[1].0,
            "{image}: without systemd {:#?}, with it {:#?}",
            numbers[0].1,
            numbers[1].1
        );
    }
    Ok(())
}

/// The open descriptors of a process: number and what it is.
fn open(pid: u32) -> Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse()?;
        // Gone meanwhile: not what this is about.
        if let Ok(target) = fs::read_link(entry.path()) {
            found.push((number, target.display().to_string()));
        }
    }
    Ok(found)
}

fn many(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let pod = "pod";
    test.know(pod);
    let member = |spec: &mut Value| {
        spec["annotations"]["io.kubernetes.cri.sandbox-id"] = pod.into();
    };
    let sandbox = scoped(test, test.run(&image).args(&["sleep", "1000"]), member)?;
    let sandbox = Running::start(test, &sandbox)?;
    let one = || -> Result<()> {
        let id = scoped(test, test.run(&image).args(&["sleep", "1000"]), member)?;
        let running = Running::start(test, &id)?;
        ensure!(test.api()?.pids(&id)?.len() == 1, "not one process");
        test.api()?.kill(&id, Signal::SIGKILL as i32, true)?;
        running.finish().map(drop)
    };
    one()?;
    let shims = shims(test);
    ensure!(shims.len() == 1, "{shims:?}");
    let shim = u32::try_from(shims[0].pid)?;
    let before = open(shim)?;
    for _ in 0..3 {
        one()?;
    }
    // What belongs to a call that is just ending goes a moment later.
    let mut after = Vec::new();
    let same = wait::until(PATIENCE, || {
        after = open(shim).ok()?;
        (after.len() <= before.len()).then_some(())
    });
    same.with_context(|| format!("the shim had {before:#?} and has {after:#?}"))?;
    sandbox.end_by(Signal::SIGKILL).map(drop)
}

fn again(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let id = scoped(test, test.run(&image).args(&["echo", "hello"]), |_| ())?;
    let api = test.api()?;
    for _ in 0..3 {
        api.create(&id, &wisp_tests::api::Streams::default())?;
        api.start(&id)?;
        ensure!(api.wait(&id)? == 0, "not 0");
        api.delete(&id)?;
        let gone = wait::until(PATIENCE, || shims(test).is_empty().then_some(()));
        gone.context("the shim outlives its task")?;
    }
    test.ctr_ok(&["container", "rm", &id])?;
    is_gone(test, &id)
}

fn devices(test: &Test<'_>) -> Result<()> {
    let image = test.busybox()?;
    let script = other_devices()?;
    let id = scoped(test, test.run(&image).args(&["sh", "-c", &script]), |_| ())?;
    reads_no_other_device(Running::start(test, &id)?)?;
    is_gone(test, &id)
}
