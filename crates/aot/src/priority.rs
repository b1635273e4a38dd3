//! Being last in line.

use std::io;

use crate::scheduling::set_class;

/// The class of those who use the disk when nobody else does, as
/// `ioprio_set(2)` has it.
const IDLE_CLASS: libc::c_int = 3 << 13;
/// That the number which follows is of a process or thread.
const WHO_PROCESS: libc::c_int = 1;
/// The lowest priority there is.
const NICEST: libc::c_int = 19;

/// Makes the calling thread, and whatever it starts from now on, run only while
/// nobody else wants the processor or the disk.
///
/// # Errors
/// The kernel's; lowering one's own priority is allowed to everybody.
pub fn lower_priority() -> io::Result<()> {
    // SAFETY: takes no pointers, and 0 is the caller.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) } != 0 {
        return Err(io::Error::last_os_error());
    }
    set_class(libc::SCHED_IDLE)?;
    // SAFETY: takes no pointers, and 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, IDLE_CLASS) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduling;

    #[test]
    fn a_thread_can_be_last_in_line() {
        std::thread::spawn(|| {
            lower_priority().expect("allowed");
            assert_eq!(scheduling::class().expect("known"), libc::SCHED_IDLE);
        })
        .join()
        .expect("no panic");
    }
}
