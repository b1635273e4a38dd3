//! Which files a guest's process reaches by name: landlock(7), where the
//! kernel has it.
//!
//! The jail has nothing but the guest's files, so this is a second wall before
//! the same things: should the process get out of its root, it still opens only
//! what is beneath the jail's two directories, executes nothing, makes no
//! devices, and signals nobody outside.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::jail;
use crate::error::ContainerError;

/// The first version that lets files be renamed between directories.
const OLDEST: libc::c_long = 2;

/// `LANDLOCK_CREATE_RULESET_VERSION`
const VERSION: libc::c_long = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`
const PATH_BENEATH: libc::c_long = 1;

/// `LANDLOCK_ACCESS_FS_*`, by the kernel's `uapi/linux/landlock.h`.
mod access {
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    /// All of the second version: also execute, make devices, sockets, pipes.
    pub const ALL: u64 = (1 << 14) - 1;
    /// Write, remove, make directories, files and symbolic links, link, rename.
    pub const WRITE: u64 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13;
    /// Third version.
    pub const TRUNCATE: u64 = 1 << 14;
    /// Fifth version.
    pub const IOCTL_DEV: u64 = 1 << 15;
}

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `_SIGNAL`: sixth version.
const SCOPES: u64 = 0b11;

/// `struct landlock_ruleset_attr`
#[repr(C)]
struct Ruleset {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// Leaves this process, for good, the jail's files only. Sets no_new_privs;
/// does nothing where the kernel has no landlock, or a very old one.
///
/// # Errors
/// The kernel's refusal.
pub fn leave_files() -> Result<(), ContainerError> {
    let writable = Path::new(jail::ROOTFS);
    restrict(&[(writable, true), (Path::new("/etc"), false)])
        .map_err(|e| ContainerError::Init(format!("limit the guest's files: {e}")))
}

/// Directories, and whether they may be written to as far as their mounts let.
pub(super) fn restrict(places: &[(&Path, bool)]) -> io::Result<()> {
    // SAFETY: asks for the version, with no attributes, as the manual has it.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<Ruleset>(),
            0,
            VERSION,
        )
    };
    if version < OLDEST {
        return Ok(());
    }
    let since = |first: libc::c_long, bits: u64| if version >= first { bits } else { 0 };
    let truncate = since(3, access::TRUNCATE);
    let ruleset = Ruleset {
        fs: access::ALL | truncate | since(5, access::IOCTL_DEV),
        net: 0,
        scoped: since(6, SCOPES),
    };
    // Older kernels refuse a longer structure only if what they do not know is
    // not zero.
    // SAFETY: `ruleset` is as long as is said and outlives the call.
    let made = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<Ruleset>(),
            0,
        )
    };
    let made = i32::try_from(made).map_err(io::Error::other)?;
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    let made = unsafe { OwnedFd::from_raw_fd(made) };
    for (path, writable) in places {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let place = match open(*path, flags, Mode::empty()) {
            Ok(place) => File::from(place),
            Err(nix::errno::Errno::ENOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let read = access::READ_FILE | access::READ_DIR;
        let rule = Beneath {
            allowed: match writable {
                true => read | access::WRITE | truncate,
                false => read,
            },
            parent: place.as_raw_fd(),
        };
        // SAFETY: `rule` is of the kind that is named and outlives the call.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                made.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0,
            )
        };
        if added != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    nix::sys::prctl::set_no_new_privs()?;
    // SAFETY: takes a descriptor that is open and no flags.
    match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made.as_raw_fd(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    /// Runs `body` in a thread that has no more than `places`. Landlock binds
    /// the thread that asks for it.
    fn within<T: Send + 'static>(
        places: Vec<(std::path::PathBuf, bool)>,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let run = move || {
            let places: Vec<_> = places.iter().map(|(p, w)| (p.as_path(), *w)).collect();
            restrict(&places).expect("restrict");
            body()
        };
        std::thread::spawn(run).join().expect("thread")
    }

    fn has_landlock() -> bool {
        // SAFETY: asks for the version, with no attributes.
        let version = unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                std::ptr::null::<u8>(),
                0,
                VERSION,
            )
        };
        version >= OLDEST
    }

    #[test]
    fn what_is_elsewhere_cannot_be_opened_and_nothing_be_executed() {
        if !has_landlock() {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).expect("dir");
        let secret = dir.path().join("secret");
        fs::write(&secret, "secret").expect("write");
        symlink(&secret, inside.join("link")).expect("link");
        fs::copy("/bin/true", inside.join("true")).expect("copy");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(inside.join("true"), mode).expect("mode");
        let missing = dir.path().join("missing");
        let own = inside.clone();
        within(vec![(inside, true), (missing, true)], move || {
            let denied = |result: io::Result<()>| {
                let error = result.expect_err("allowed");
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{error}");
            };
            fs::write(own.join("a"), "text").expect("write");
            fs::create_dir(own.join("d")).expect("dir");
            fs::rename(own.join("a"), own.join("d/b")).expect("between directories");
            fs::hard_link(own.join("d/b"), own.join("c")).expect("link");
            assert_eq!(fs::read(own.join("c")).expect("read"), b"text");
            File::options()
                .write(true)
                .truncate(true)
                .open(own.join("c"))
                .expect("truncate");
            fs::remove_file(own.join("c")).expect("remove");
            denied(fs::read(&secret).map(drop));
            denied(fs::read(own.join("link")).map(drop));
            denied(fs::read("/proc/self/status").map(drop));
            denied(fs::write(&secret, "mine"));
            denied(Command::new(own.join("true")).status().map(drop));
        });
    }

    #[test]
    fn what_is_for_reading_is_not_for_writing() {
        if !has_landlock() {
            return;
        }
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("file");
        fs::write(&file, "text").expect("write");
        within(vec![(dir.path().to_owned(), false)], move || {
            assert_eq!(fs::read(&file).expect("read"), b"text");
            assert!(fs::write(&file, "more").is_err());
            assert!(fs::remove_file(&file).is_err());
        });
    }
}
