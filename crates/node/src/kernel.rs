//! What the kernel can do.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// What was found out about the running kernel. Each feature was tried, unless
/// its field says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Such as `6.1.0-13-amd64`.
    pub release: String,
    /// Paths resolved inside a root (5.6).
    pub openat2: bool,
    /// Mounts attached by descriptor, with attributes (5.2 and 5.12).
    pub mounts_by_descriptor: bool,
    /// Descriptors of processes (5.3).
    pub pidfd: bool,
    /// Processes that are born in their cgroup (5.7, told by the release: the
    /// flag cannot be tried without making a process).
    pub clone_into_cgroup: bool,
    /// Files without a file system.
    pub memfd: bool,
    /// Filters of system calls.
    pub seccomp: bool,
    /// Namespaces of users, and more than none of them allowed.
    pub user_namespaces: bool,
    /// Whether the kernel has or can load it: by its list of file systems, or by
    /// the module's file.
    pub overlayfs: bool,
    /// Which pages of a guest's memory were written to (6.7).
    pub pagemap_scan: bool,
    /// The version of Landlock's interface, if it is on.
    pub landlock: Option<u32>,
}

impl Kernel {
    /// Asks the running kernel.
    pub fn probe() -> Self {
        let release = text("/proc/sys/kernel/osrelease");
        let clone3 = known(libc::SYS_clone3);
        Self {
            openat2: known(libc::SYS_openat2),
            mounts_by_descriptor: [
                libc::SYS_open_tree,
                libc::SYS_move_mount,
                libc::SYS_mount_setattr,
            ]
            .into_iter()
            .all(known),
            pidfd: known(libc::SYS_pidfd_open) && known(libc::SYS_pidfd_send_signal),
            clone_into_cgroup: clone3 && at_least(&release, 5, 7),
            memfd: memfd_create("wisp-doctor", MFdFlags::MFD_CLOEXEC).is_ok(),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            user_namespaces: Path::new("/proc/self/ns/user").exists()
                && text("/proc/sys/user/max_user_namespaces") != "0",
            overlayfs: has_overlayfs(&release),
            pagemap_scan: pagemap_scan(),
            landlock: landlock(),
            release,
        }
    }
}

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Whether a kernel of this release is `major.minor` or later.
pub fn at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found >= (major, minor)
}

fn has_overlayfs(release: &str) -> bool {
    let listed = text("/proc/filesystems")
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"));
    // It is loaded with the first mount.
    let modules = Path::new("/lib/modules").join(release);
    let module = modules.join("kernel/fs/overlayfs");
    listed
        || module.exists()
        || text(&modules.join("modules.builtin").to_string_lossy()).contains("/overlay.ko")
}

/// Whether the kernel knows a system call. It is made with arguments that no
/// call accepts.
fn known(number: libc::c_long) -> bool {
    const NOTHING: libc::c_long = -1;
    // SAFETY: all pointers are invalid on purpose (-1 is no address of user
    // space) and all sizes, descriptors and flags are, too: the kernel refuses
    // the call before it touches any memory or does anything.
    let answer = unsafe { libc::syscall(number, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING) };
    answer >= 0 || Errno::last() != Errno::ENOSYS
}

fn pagemap_scan() -> bool {
    /// `_IOWR('f', 16, struct pm_scan_arg)` of `linux/fs.h`; the structure has
    /// 96 bytes.
    const PAGEMAP_SCAN: u64 = (3 << 30) | (96 << 16) | ((b'f' as u64) << 8) | 16;
    let Ok(pagemap) = fs::File::open("/proc/self/pagemap") else {
        return false;
    };
    let fd = std::os::fd::AsRawFd::as_raw_fd(&pagemap);
    // SAFETY: the argument is a null pointer, which the kernel answers with
    // EFAULT; it neither reads nor writes memory of ours.
    let answer =
        unsafe { libc::ioctl(fd, PAGEMAP_SCAN as _, std::ptr::null_mut::<libc::c_void>()) };
    answer >= 0 || !matches!(Errno::last(), Errno::ENOTTY | Errno::ENOSYS)
}

fn landlock() -> Option<u32> {
    const VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes a null pointer and no size, and
    // answers with a number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    };
    u32::try_from(answer).ok().filter(|version| *version > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(at_least("6.1.0-13-amd64", 5, 12));
        assert!(at_least("5.12", 5, 12));
        assert!(at_least("10.0.1", 9, 9));
        assert!(!at_least("5.4.0-150-generic", 5, 12));
        assert!(!at_least("", 1, 0));
    }

    #[test]
    fn a_call_that_no_kernel_has_is_not_known() {
        assert!(known(libc::SYS_close));
        assert!(!known(100_000));
    }

    #[test]
    fn the_running_kernel_can_be_asked() {
        let kernel = Kernel::probe();
        assert!(!kernel.release.is_empty());
        assert!(kernel.memfd && kernel.pidfd, "{kernel:?}");
    }
}
