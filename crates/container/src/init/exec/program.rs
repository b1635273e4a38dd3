//! A native program in a Wasm container. The container's root is a jail with
//! the image's files at `/rootfs`; to the program, those are the root.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, execve, pivot_root};
use oci_spec::runtime::{Process, Spec};

use crate::error::ContainerError;
use crate::init::jail;

/// Where a bare name is looked for if the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Name, major and minor number.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Name and target.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// What `execve` is given.
pub struct Native {
    /// In the order in which they are tried.
    candidates: Vec<CString>,
    name: String,
    args: Vec<CString>,
    env: Vec<CString>,
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> ContainerError {
    move |error| ContainerError::Init(format!("{what}: {error}"))
}

impl Native {
    /// What `process` asks for.
    ///
    /// # Errors
    /// When a text in it cannot be given to a program.
    pub fn prepare(process: &Process) -> Result<Self, ContainerError> {
        let texts = |field: &'static str, texts: &Option<Vec<String>>| {
            texts
                .iter()
                .flatten()
                .map(|text| {
                    CString::new(text.as_str()).map_err(|_| {
                        ContainerError::Unsupported(format!(
                            "process.{field}: contains a zero byte"
                        ))
                    })
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let args = texts("args", process.args())?;
        let env = texts("env", process.env())?;
        let name = process
            .args()
            .iter()
            .flatten()
            .next()
            .cloned()
            .unwrap_or_default();
        let path = process
            .env()
            .iter()
            .flatten()
            .find_map(|pair| pair.strip_prefix("PATH="))
            .filter(|path| !path.is_empty())
            .unwrap_or(DEFAULT_PATH);
        let candidates = candidates(&name, path)
            .into_iter()
            .filter_map(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok())
            .collect();
        Ok(Self {
            candidates,
            name,
            args,
            env,
        })
    }

    /// Enters the working directory, before the user changes, as runc does.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn go_to_cwd(&self, process: &Process) -> Result<(), ContainerError> {
        let cwd = process.cwd();
        if cwd.as_os_str().is_empty() {
            return Ok(());
        }
        chdir(cwd).map_err(|errno| {
            ContainerError::Unsupported(format!("process.cwd: {}: {errno}", cwd.display()))
        })
    }

    /// Becomes the program.
    ///
    /// # Errors
    /// Why it cannot be executed.
    pub fn run(&self) -> Result<Infallible, ContainerError> {
        let mut reason = Errno::ENOENT;
        for path in &self.candidates {
            match execve(path, &self.args, &self.env) {
                Ok(never) => return Ok(never),
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => reason = errno,
            }
        }
        Err(ContainerError::Unsupported(format!(
            "execute {:?}: {}",
            self.name,
            reason.desc()
        )))
    }
}

/// The paths that `name` may mean, as `execvp` has it.
fn candidates(name: &str, path: &str) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    let mut all: Vec<PathBuf> = path
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .collect();
    // As the choice has it for programs of a container.
    all.push(Path::new(".").join(name));
    all
}

/// Makes the image's files this process's root, in a mount namespace of its
/// own, with the default devices where the image has a `/dev`, and a `/proc`
/// where it has one and `spec` mounts one.
///
/// # Errors
/// The kernel's refusal.
pub fn enter_image(spec: &Spec) -> Result<(), ContainerError> {
    let image = Path::new(jail::ROOTFS);
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("take an own view of the mounts"))?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(failed("make the mounts private"))?;
    let devices = image.join("dev");
    if is_dir(&devices) {
        mount_devices(&devices)?;
    }
    let wanted = spec.mounts().iter().flatten().any(|mount| {
        mount.destination() == Path::new("/proc") && mount.typ().as_deref() == Some("proc")
    });
    // What masks files is the device that takes everything and has nothing.
    if wanted && is_dir(&image.join("proc")) && image.join("dev/null").exists() {
        mount_proc(spec, image)?;
    }
    chdir(image).map_err(failed("enter the image's root"))?;
    pivot_root(".", ".").map_err(failed("make the image the root"))?;
    // The jail is now mounted over it.
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("leave the jail"))?;
    chdir("/").map_err(failed("enter the root"))
}

/// Not a link: what an image's link leads to is not to be mounted over.
fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Mounts a `/dev` with the devices and links that every container has (runtime
/// spec, "Default Devices" and "Dev symbolic links"), without terminals.
///
/// Each of them is a mount of its own, and the rest of it is without devices as
/// everything else in a guest's container is: a program that may make device
/// files cannot use them, whether or not its cgroup has a say in that.
fn mount_devices(dev: &Path) -> Result<(), ContainerError> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("mode=755,size=64k");
    mount(Some("tmpfs"), dev, Some("tmpfs"), flags, options).map_err(failed("mount /dev"))?;
    let any = Mode::from_bits_truncate(0o666);
    for (name, major, minor) in DEVICES {
        let place = dev.join(name);
        match mknod(&place, SFlag::S_IFCHR, any, makedev(major, minor)) {
            Ok(()) => {}
            // The container's cgroup does not allow it.
            Err(Errno::EPERM) => continue,
            Err(errno) => return Err(failed("make a device")(errno)),
        }
        // Whatever our umask.
        fs::set_permissions(&place, fs::Permissions::from_mode(any.bits()))
            .map_err(failed("make a device"))?;
        mount(Some(&place), &place, none, MsFlags::MS_BIND, none)
            .map_err(failed("mount a device"))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).map_err(failed("make a link in /dev"))?;
    }
    let sealed = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NODEV | flags;
    mount(none, dev, none, sealed, none).map_err(failed("seal /dev"))
}

/// Mounts the image's `/proc`, masked and read-only where the spec says so, as
/// the native containers of the same pod have it.
fn mount_proc(spec: &Spec, image: &Path) -> Result<(), ContainerError> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), &image.join("proc"), Some("proc"), flags, none) {
        Ok(()) => {}
        // In a user namespace one must have been in sight before.
        Err(Errno::EPERM) => return Ok(()),
        Err(errno) => return Err(failed("mount /proc")(errno)),
    }
    let linux = spec.linux().as_ref();
    let places = |paths: Option<&Option<Vec<String>>>| -> Vec<PathBuf> {
        let paths = paths.into_iter().flatten().flatten();
        paths
            .filter(|path| Path::new(path).starts_with("/proc"))
            .map(|path| image.join(path.trim_start_matches('/')))
            // Kernels differ in what they have.
            .filter(|place| place.exists())
            .collect()
    };
    let null = image.join("dev/null");
    for place in places(linux.map(|linux| linux.masked_paths())) {
        let masked = if is_dir(&place) {
            mount(
                Some("tmpfs"),
                &place,
                Some("tmpfs"),
                MsFlags::MS_RDONLY,
                none,
            )
        } else {
            mount(Some(&null), &place, none, MsFlags::MS_BIND, none)
        };
        masked.map_err(failed("mask a part of /proc"))?;
    }
    for place in places(linux.map(|linux| linux.readonly_paths())) {
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
        mount(
            Some(&place),
            &place,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .and_then(|()| mount(none, &place, none, again, none))
        .map_err(failed("make a part of /proc read-only"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_for_along_the_path_and_here() {
        let found = candidates("sh", "/bin:/usr/bin");
        let expected = ["/bin/sh", "/usr/bin/sh", "./sh"].map(PathBuf::from);
        assert_eq!(found, expected);
        assert_eq!(candidates("./sh", "/bin"), [PathBuf::from("./sh")]);
    }

    #[test]
    fn a_zero_byte_is_refused_by_name() {
        let mut process = Process::default();
        process.set_args(Some(vec!["a\0b".into()]));
        let error = Native::prepare(&process).err().expect("refused");
        assert!(error.to_string().contains("process.args"), "{error}");
    }
}
