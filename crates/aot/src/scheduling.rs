//! Scheduling classes, asked of the kernel itself: musl's functions for them
//! only fail with ENOSYS.

use std::io;

/// The class of the calling thread, such as `SCHED_OTHER`.
///
/// # Errors
/// The kernel's; none is known for the caller itself.
#[cfg(any(test, feature = "compiler"))]
pub fn class() -> io::Result<libc::c_int> {
    // SAFETY: takes no pointers, and 0 is the caller.
    let class = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    match libc::c_int::try_from(class) {
        Ok(class) if class >= 0 => Ok(class),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts the calling thread, and whatever it starts from now on, in one of the
/// classes without priorities: `SCHED_OTHER`, `SCHED_BATCH` or `SCHED_IDLE`.
///
/// # Errors
/// The kernel's. To leave `SCHED_IDLE` can take a privilege.
pub fn set_class(class: libc::c_int) -> io::Result<()> {
    let priority: libc::c_int = 0;
    // SAFETY: `struct sched_param` of the kernel is this one integer, which
    // lives during the call and is only read.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const priority) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_in_the_class_that_it_was_put_in() {
        std::thread::spawn(|| {
            set_class(libc::SCHED_BATCH).expect("allowed");
            assert_eq!(class().expect("known"), libc::SCHED_BATCH);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn a_class_that_needs_a_priority_is_refused() {
        let error = set_class(libc::SCHED_FIFO).expect_err("no priority is 0");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
