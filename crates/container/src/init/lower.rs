//! Files of an image that no container has touched.
//!
//! containerd's overlayfs snapshotter gives a container the directories of its
//! image's layers, shared by all containers of the image, and on top of them a
//! directory of its own for what it changes. A file that is not in the upper
//! directory is one of the image's: no container can change it, and another
//! container whose root has the same layers finds the same file.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, TMPFS_MAGIC, statfs};

use crate::control::RootfsMount;

/// File systems of this machine, on which the time of a file's last change is
/// the kernel's: nobody can choose it.
const LOCAL: [FsType; 5] = [
    EXT4_SUPER_MAGIC,
    XFS_SUPER_MAGIC,
    BTRFS_SUPER_MAGIC,
    TMPFS_MAGIC,
    F2FS_SUPER_MAGIC,
];
// Two that the headers of some C libraries lack; these are the kernel's numbers.
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);
const F2FS_SUPER_MAGIC: FsType = FsType(0xF2F5_2010);

/// A file of the image.
#[derive(Debug, PartialEq, Eq)]
pub struct Lower {
    place: String,
    layers: Vec<PathBuf>,
}

impl Lower {
    /// The layers that are looked through and the path in them: with the same
    /// layers, the same file.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether the layers are on file systems of this machine. A remote one
    /// may have files that change without a trace.
    pub fn is_local(&self) -> bool {
        self.layers
            .iter()
            .all(|layer| statfs(layer).is_ok_and(|fs| LOCAL.contains(&fs.filesystem_type())))
    }
}

/// Where in the image `file` is, which was opened below `root`, if `mounts`
/// make `root` of an image's layers and the file comes from one of them.
pub fn of(file: &File, root: &Path, mounts: &[RootfsMount]) -> Option<Lower> {
    let [mount] = mounts else { return None };
    if mount.kind != "overlay" {
        return None;
    }
    let option = |name: &str| {
        let mut values = mount
            .options
            .iter()
            .filter_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let value = values.next();
        values.next().is_none().then_some(value)
    };
    let lowers = option("lowerdir")??;
    let layers: Vec<PathBuf> = lowers.split(':').map(PathBuf::from).collect();
    // Also with an escaped colon or an empty part, which are not worth reading.
    if lowers.contains('\\') || !layers.iter().all(|layer| layer.is_absolute()) {
        return None;
    }
    // Without any link, as the kernel has it.
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let path = path.strip_prefix(root).ok()?;
    if let Some(upper) = option("upperdir")? {
        match fs::symlink_metadata(Path::new(upper).join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return None,
        }
    }
    Some(Lower {
        place: format!("{lowers}\0{}", path.to_str()?),
        layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Layers(tempfile::TempDir);

    impl Layers {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            for name in ["upper", "lower", "root/bin"] {
                fs::create_dir_all(dir.path().join(name)).expect("dir");
            }
            fs::write(dir.path().join("root/bin/app.wasm"), "wasm").expect("write");
            Self(dir)
        }

        fn path(&self, name: &str) -> PathBuf {
            // As the kernel has it.
            self.0.path().canonicalize().expect("path").join(name)
        }

        fn mount(&self) -> RootfsMount {
            RootfsMount {
                kind: "overlay".into(),
                source: "overlay".into(),
                options: vec![
                    format!("upperdir={}", self.path("upper").display()),
                    format!("lowerdir={}", self.path("lower").display()),
                ],
            }
        }

        fn of(&self, mounts: &[RootfsMount]) -> Option<Lower> {
            let file = File::open(self.path("root/bin/app.wasm")).expect("open");
            of(&file, &self.path("root"), mounts)
        }
    }

    #[test]
    fn a_file_of_the_image_is_named_by_its_layers_and_path() {
        let layers = Layers::new();
        let lower = layers.of(&[layers.mount()]).expect("of the image");
        let place = format!("{}\0bin/app.wasm", layers.path("lower").display());
        assert_eq!(lower.place(), place);
        assert_eq!(lower.layers, [layers.path("lower")]);
    }

    #[test]
    fn a_root_without_an_upper_directory_is_all_the_images() {
        let layers = Layers::new();
        let mut mount = layers.mount();
        mount.options.remove(0);
        assert!(layers.of(&[mount]).is_some());
    }

    #[test]
    fn a_file_that_the_container_has_changed_is_not_the_images() {
        let layers = Layers::new();
        fs::create_dir(layers.path("upper/bin")).expect("dir");
        fs::write(layers.path("upper/bin/app.wasm"), "").expect("write");
        assert_eq!(layers.of(&[layers.mount()]), None);
    }

    #[test]
    fn other_mounts_say_nothing() {
        let layers = Layers::new();
        let change = |change: fn(&mut RootfsMount)| {
            let mut mount = layers.mount();
            change(&mut mount);
            mount
        };
        for mounts in [
            vec![],
            vec![layers.mount(), layers.mount()],
            vec![change(|mount| mount.kind = "bind".into())],
            vec![change(|mount| mount.options.clear())],
            vec![change(|mount| mount.options[1] = "lowerdir=a:/b".into())],
            vec![change(|mount| mount.options[1] = "lowerdir=/a::/b".into())],
            vec![change(|mount| mount.options[1] = "lowerdir=/a\\:b".into())],
            vec![change(|mount| mount.options.push("lowerdir=/a".into()))],
            vec![change(|mount| mount.options.push("upperdir=/a".into()))],
        ] {
            assert_eq!(layers.of(&mounts), None, "{mounts:?}");
        }
        let file = File::open(layers.path("root/bin/app.wasm")).expect("open");
        let elsewhere = of(&file, &layers.path("lower"), &[layers.mount()]);
        assert_eq!(elsewhere, None);
    }
}
