//! How a compiler ended, as a sentence for whoever has to act on it.

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::bounds;
use crate::limits::CompilerLimits;

/// The exit code of a compiler that has said what is wrong.
pub(super) const REFUSED: i32 = 1;

/// That of one whose processor time is over.
pub(super) const TIME_OVER: i32 = 3;

/// How much of a fault's own words is passed on.
const FAULT: usize = 600;

pub(super) fn memory(limits: &CompilerLimits) -> String {
    format!(
        "compiling it takes more than {} MiB of memory; compiler.memory_mib in the settings \
         allows more",
        limits.memory_mib
    )
}

fn time(limits: &CompilerLimits) -> String {
    format!(
        "compiling it takes more than {} s of processor time; compiler.timeout_seconds in the \
         settings allows more",
        limits.cpu_seconds
    )
}

pub(super) fn code(limits: &CompilerLimits) -> String {
    format!(
        "its code is larger than {} MiB; compiler.max_code_mib in the settings allows more",
        limits.code_mib
    )
}

pub(super) fn program(mib: u64) -> String {
    crate::error::AotError::TooLarge(mib).to_string()
}

/// What `status` means, for a compiler that ended otherwise than well, after
/// `seconds` of processor time and these last words.
pub(super) fn verdict(
    status: WaitStatus,
    words: &str,
    seconds: u64,
    limits: &CompilerLimits,
) -> String {
    let words = words.trim();
    if is_about_memory(words) && !matches!(status, WaitStatus::Exited(_, REFUSED)) {
        return memory(limits);
    }
    if matches!(status, WaitStatus::Exited(_, TIME_OVER)) {
        return time(limits);
    }
    if words.contains("has overflowed its stack") {
        return format!(
            "it is nested too deeply to be compiled on a stack of {} MiB, and no setting allows \
             more: it must be built with less nesting",
            bounds::STACK >> 20
        );
    }
    if words.contains("panicked at") {
        return fault("failed", words);
    }
    match status {
        WaitStatus::Exited(_, REFUSED) if !words.is_empty() => words.to_owned(),
        WaitStatus::Exited(_, code) => fault(&format!("ended with code {code}"), words),
        WaitStatus::Signaled(_, Signal::SIGKILL | Signal::SIGXCPU, _)
            if seconds >= limits.cpu_seconds =>
        {
            time(limits)
        }
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => "the compiler was killed: the node or the \
             control group that it runs in is out of memory, or somebody has done it; with a \
             lower compiler.memory_mib in the settings a program like this is refused in time"
            .into(),
        WaitStatus::Signaled(_, Signal::SIGXFSZ, _) => code(limits),
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => "the compiler was stopped at a system call \
             that its confinement forbids: a fault in the compiler, or a program made to exploit \
             one; it is not run. The kernel's log names the call (audit, type=1326)"
            .into(),
        WaitStatus::Signaled(_, signal, _) => fault(&format!("crashed ({signal})"), words),
        other => fault(&format!("ended strangely ({other:?})"), words),
    }
}

/// Whether these words, of Rust's own or of the kernel, tell of memory that
/// was not to be had.
fn is_about_memory(words: &str) -> bool {
    [
        "memory allocation of",
        "Cannot allocate memory",
        "os error 12)",
        "out of memory",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

fn fault(how: &str, words: &str) -> String {
    let words: String = words.chars().take(FAULT).collect();
    let colon = if words.is_empty() { "" } else { ": " };
    format!("the compiler {how} on this program, which is a fault in it, not in you{colon}{words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Pid;

    fn limits() -> CompilerLimits {
        CompilerLimits {
            program_mib: 1,
            code_mib: 2,
            memory_mib: 3,
            threads: 1,
            cpu_seconds: 5,
        }
    }

    fn killed(signal: Signal) -> WaitStatus {
        WaitStatus::Signaled(Pid::from_raw(2), signal, false)
    }

    fn exited(code: i32) -> WaitStatus {
        WaitStatus::Exited(Pid::from_raw(2), code)
    }

    #[test]
    fn each_end_is_told_with_its_limit_and_the_way_out() {
        let abort = "memory allocation of 4096 bytes failed";
        let deep = "thread '<unnamed>' has overflowed its stack\nfatal runtime error";
        let panic = "thread 'x' panicked at src/a.rs:1:2:\nindex out of bounds";
        for (status, words, seconds, expected) in [
            (killed(Signal::SIGSEGV), abort, 0, "compiler.memory_mib"),
            (killed(Signal::SIGABRT), abort, 0, "more than 3 MiB"),
            (
                exited(101),
                "Cannot allocate memory",
                0,
                "compiler.memory_mib",
            ),
            (killed(Signal::SIGABRT), deep, 0, "nested too deeply"),
            (exited(101), panic, 0, "index out of bounds"),
            (killed(Signal::SIGKILL), "", 5, "compiler.timeout_seconds"),
            (exited(TIME_OVER), "", 0, "more than 5 s"),
            (killed(Signal::SIGKILL), "", 4, "out of memory"),
            (killed(Signal::SIGXFSZ), "", 0, "compiler.max_code_mib"),
            (killed(Signal::SIGSYS), "", 0, "type=1326"),
            (killed(Signal::SIGSEGV), "", 0, "SIGSEGV"),
            (exited(1), "", 0, "code 1"),
            (exited(7), "hm", 0, "code 7"),
        ] {
            let text = verdict(status, words, seconds, &limits());
            assert!(text.contains(expected), "{status:?} {words:?}: {text}");
        }
    }

    #[test]
    fn what_the_compiler_says_itself_is_passed_on() {
        let words = "invalid WebAssembly: an import named out of memory";
        assert_eq!(verdict(exited(1), words, 0, &limits()), words);
    }
}
