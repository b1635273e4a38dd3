//! Pods while containerd is down and while the disk of their logs is full.

use super::Case;
use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use wisp_tests::cri::{Container, Node, Stream, Test};
use wisp_tests::images::Images;
use wisp_tests::wait::{self, PATIENCE};

pub fn cases() -> Vec<Case> {
    super::cases(
        "faults",
        &[
            (
                "logs and ends of guests outlive a crash of containerd",
                crash,
            ),
            ("a full disk under the logs stops no guest", log_disk_full),
            ("a pod whose shim is killed ends as a whole", shim_killed),
        ],
    )
}

/// Lines that are told apart.
fn lines(from: usize, to: usize) -> String {
    (from..=to).map(|n| format!("line {n}\n")).collect()
}

/// Replaces a file at once, so that its reader sees it whole.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, path)?)
}

/// How often containerd may lose what an ended guest wrote.
const TRIES: usize = 3;

fn crash(shared: &Test<'_>) -> Result<()> {
    // When containerd comes back it opens the FIFOs in the background, and closes
    // those that are not open yet when it finds their task ended. On a busy machine
    // that happens; what they held is gone then, whoever held it.
    for _ in 0..TRIES {
        if is_read_after_crash(shared)? {
            return Ok(());
        }
    }
    bail!("what a guest wrote before its end was lost as a whole, {TRIES} times")
}

/// Whether containerd has read what an ended guest wrote meanwhile. It may have read
/// nothing, never a part.
fn is_read_after_crash(shared: &Test<'_>) -> Result<bool> {
    // Nobody else's containerd.
    let node = Node::start(shared.version())?;
    let images = Images::new()?;
    let test = Test::new(&node, &images)?;
    let pod = test.pod("logged").run()?;
    let dir = test.volume("data")?;
    let image = test.image("tour")?;
    // `tour watch` says what its file has whenever that is new.
    let start = |name: &str, last: &str| -> Result<Container<'_, '_, '_>> {
        fs::write(dir.join(name), lines(1, 10))?;
        let container = pod
            .container(name, &image)
            .args(&["watch", &format!("/data/{name}"), last])
            .volume(&dir, "/data")
            .start()?;
        container.says("line 10")?;
        Ok(container)
    };
    let last = lines(11, 900);
    let lasting = start("lasting", "the end")?;
    let ending = start("ending", last.trim_end())?;
    let process = Path::new("/proc").join(ending.pid()?.to_string());

    let down = node.as_ref().crash()?;
    replace(&dir.join("lasting"), &lines(11, 300))?;
    replace(&dir.join("ending"), &last)?;
    wait::until(PATIENCE, || (!process.exists()).then_some(())).context("the guest goes on")?;
    down.restart()?;
    // The connection of before is gone with it.
    wait::until(PATIENCE, || pod.is_ready().ok()).context("the CRI does not come back")?;

    ensure!(pod.is_ready()?, "the pod is not ready any more");
    let status = ending.wait()?;
    ensure!(
        status.exit_code == 0 && status.reason == "Completed",
        "{status:?}"
    );
    lasting.says("line 300")?;
    let read = ending.says("line 900").is_ok();
    let said = ending.text(Stream::Stdout)?;
    ensure!(said == lines(1, if read { 900 } else { 10 }), "{said}");
    replace(&dir.join("lasting"), &lines(301, 310))?;
    lasting.says("line 310")?;
    replace(&dir.join("lasting"), "the end\n")?;
    let status = lasting.wait()?;
    ensure!(status.exit_code == 0, "{status:?}");
    lasting.says("the end")?;
    let said = lasting.text(Stream::Stdout)?;
    ensure!(said == format!("{}the end\n", lines(1, 310)), "{said}");
    test.nothing_left()?;
    Ok(read)
}

/// A file system that goes with the test.
struct Disk<'a>(&'a Path);

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

fn log_disk_full(test: &Test<'_>) -> Result<()> {
    let pod = test.pod("full").run()?;
    let logs = test.dir().join("logs/full");
    mount(
        Some("none"),
        &logs,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=64k,mode=0755"),
    )?;
    let disk = Disk(&logs);
    let image = test.image("tour")?;
    let loud = pod
        .container("loud", &image)
        .args(&["flood", "1m"])
        .start()?;
    // containerd reads on and throws away what it cannot keep.
    let status = loud.wait()?;
    ensure!(status.exit_code == 0, "{status:?}");
    loud.remove()?;
    let next = pod
        .container("next", &image)
        .args(&["exit", "7"])
        .start()?
        .wait()?;
    ensure!(next.exit_code == 7, "{next:?}");
    drop(disk);
    Ok(())
}

fn shim_killed(test: &Test<'_>) -> Result<()> {
    let (tour, busybox) = (test.image("tour")?, test.busybox()?);
    for native_too in [true, false] {
        let pod = test.pod("orphaned").run()?;
        let mut containers = vec![
            pod.container("guest", &tour)
                .args(&["sleep", "1000000"])
                .start()?,
        ];
        if native_too {
            let sidecar = pod.container("sidecar", &busybox);
            containers.push(sidecar.command(&["/bin/sleep", "1000"]).start()?);
        }
        let mut pids = vec![pod.pid()?];
        for container in &containers {
            pids.push(container.pid()?);
        }
        kill(shim_of(pids[0])?, Signal::SIGKILL)?;
        // The kubelet hears of it: it would not start them again otherwise.
        for container in &containers {
            let status = container.wait()?;
            // 255 is containerd's own: it could not ask any more.
            ensure!([137, 255].contains(&status.exit_code), "{status:?}");
        }
        wait::until(PATIENCE, || (!pod.is_ready().ok()?).then_some(()))
            .context("the pod stays ready")?;
        for pid in pids {
            let process = Path::new("/proc").join(pid.to_string());
            wait::until(PATIENCE, || (!process.exists()).then_some(()))
                .with_context(|| format!("process {pid} lives on"))?;
        }
        for container in &containers {
            container.stop(1)?;
            container.remove()?;
        }
        pod.stop()?;
        pod.remove()?;
    }
    Ok(())
}

/// The shim of the container whose first process this is.
fn shim_of(pid: u32) -> Result<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("no state")?;
    let parent = rest.split(' ').nth(1).context("no parent")?;
    Ok(Pid::from_raw(parent.parse()?))
}
