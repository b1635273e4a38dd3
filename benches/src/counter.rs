//! Counts the instructions that a program executes in user mode, one by one. The
//! count does not depend on how busy the machine is, and needs no hardware
//! counters, which virtual machines often lack. A million take from two seconds to
//! fifteen, the latter in a virtual machine.

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::{Child, Command, Stdio};

/// How a program is begun: with memory at the same addresses each time, and
/// stopped until it is watched.
const STOPPED: &str = "kill -STOP $$; exec \"$@\"";

/// Keeps this thread, and so what it counts, on the CPU that is `number`th of
/// those it may use, or on the last: each instruction is a change from one to the
/// other and back, which is far slower between two CPUs.
///
/// # Errors
/// The kernel's.
pub fn on_one_cpu(number: usize) -> Result<()> {
    let own = Pid::from_raw(0);
    let all = sched_getaffinity(own)?;
    let mut usable = Vec::new();
    for cpu in 0..CpuSet::count() {
        if all.is_set(cpu)? {
            usable.push(cpu);
        }
    }
    let cpu = usable.get(number).or(usable.last()).context("no CPU")?;
    let mut one = CpuSet::new();
    one.set(*cpu)?;
    sched_setaffinity(own, &one).context("stay on one CPU")
}

/// Runs `command` to its end and answers how many instructions its first thread
/// has executed. Its children are not counted.
///
/// # Errors
/// When it cannot be watched, or fails.
pub fn instructions(command: &Command) -> Result<u64> {
    let mut begun = Command::new("setarch");
    begun
        .args(["-R", "sh", "-c", STOPPED, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => begun.env(name, value),
            None => begun.env_remove(name),
        };
    }
    let mut child = begun.spawn().context("start setarch (util-linux)")?;
    let counted = count(Pid::from_raw(i32::try_from(child.id())?));
    if counted.is_err() {
        end(&mut child);
    }
    counted.with_context(|| format!("count the instructions of {command:?}"))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn count(pid: Pid) -> Result<u64> {
    match waitpid(pid, Some(WaitPidFlag::WUNTRACED))? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => bail!("did not begin: {other:?}"),
    }
    ptrace::seize(
        pid,
        Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL,
    )?;
    kill(pid, Signal::SIGCONT)?;
    // To where the program itself begins.
    loop {
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(_, _, event) if event == nix::libc::PTRACE_EVENT_EXEC => break,
            // That it was stopped, and continues.
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                ptrace::cont(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal)?,
            other => bail!("did not begin: {other:?}"),
        }
    }
    let mut count = 0;
    let mut signal = None;
    loop {
        ptrace::step(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => count += 1,
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::PtraceEvent(..) => {}
            WaitStatus::Exited(_, code) => {
                ensure!(code == 0, "it exited with {code}");
                return Ok(count);
            }
            other => bail!("it ended: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_executes_the_same_number_of_instructions_each_time() {
        // Static, so that no loader's searches depend on the machine's state.
        let mut program = Command::new("/bin/busybox");
        program.arg("true");
        let first = instructions(&program).expect("count");
        assert!(first > 100, "{first}");
        assert_eq!(instructions(&program).expect("count"), first);
    }

    #[test]
    fn a_program_that_fails_is_no_measurement() {
        let mut program = Command::new("/bin/busybox");
        program.arg("false");
        let error = instructions(&program).expect_err("false fails");
        assert!(format!("{error:#}").contains("exited with 1"), "{error:#}");
    }
}
