//! The images that the contestants run.

use crate::contestants::{Form, image};
use crate::node::Node;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use wisp_tests::oci::{Entry, Image};

/// The platform of images of the form [`Form::WasmLayer`].
pub const LAYER_PLATFORM: &str = "wasi/wasm";

/// Makes and imports images.
#[derive(Debug)]
pub struct Images<'a> {
    node: &'a Node,
    wisp: PathBuf,
}

impl<'a> Images<'a> {
    pub fn new(node: &'a Node, binaries: &Path) -> Self {
        Self {
            node,
            wisp: binaries.join("wisp"),
        }
    }

    /// Packs a Wasm file and imports it; answers the archive's size in bytes.
    ///
    /// # Errors
    /// What `wisp pack` or `ctr` said.
    pub fn wasm(&self, name: &str, program: &Path, form: Form) -> Result<u64> {
        let reference = image(name, form);
        let archive = self.archive(&reference);
        let mut pack = Command::new(&self.wisp);
        pack.arg("pack")
            .arg(program)
            .args(["-t", &reference, "-o"])
            .arg(&archive);
        if form == Form::WasmLayer {
            // Where and as what `containerd-shim-wasm` looks for programs.
            pack.args(["--artifact", "--platform", LAYER_PLATFORM]);
            pack.args(["--layer-type", "wasm"]);
        }
        let output = pack.output().with_context(|| format!("{pack:?}"))?;
        ensure!(
            output.status.success(),
            "{pack:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        match form {
            Form::WasmLayer => self.import(&archive, &["--all-platforms", "--no-unpack"]),
            Form::WasmFile | Form::Native => self.import(&archive, &[]),
        }
    }

    /// An image with busybox and the native form of the guest; answers the size
    /// of the archive with busybox alone, which is all that a user would ship.
    ///
    /// # Errors
    /// When one of them is missing, or what `ctr` said.
    pub fn native(&self, start: &Path) -> Result<u64> {
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        let busybox = read(Path::new("/bin/busybox"))?;
        let start = read(start)?;
        let reference = image("native", Form::Native);
        let archive = self.archive(&reference);
        let mut files = vec![
            Entry::Dir("bin"),
            Entry::File("bin/busybox", 0o755, &busybox),
        ];
        let write = |files: &[Entry<'_>]| {
            Image::new(&["/bin/busybox"])
                .files(files)?
                .write(&reference, false, &archive)
        };
        write(&files)?;
        let size = fs::metadata(&archive)?.len();
        files.push(Entry::File("bin/start", 0o755, &start));
        write(&files)?;
        self.import(&archive, &[])?;
        Ok(size)
    }

    /// The image of the first container of pods, which only stays: the native
    /// form of the guest.
    ///
    /// # Errors
    /// When it is missing, or what `ctr` said.
    pub fn pause(&self, start: &Path) -> Result<()> {
        let program = fs::read(start).with_context(|| start.display().to_string())?;
        let reference = image("pause", Form::Native);
        let archive = self.archive(&reference);
        Image::new(&["/start", "idle"])
            .files(&[Entry::File("start", 0o755, &program)])?
            .write(&reference, false, &archive)?;
        self.import(&archive, &[]).map(drop)
    }

    fn archive(&self, reference: &str) -> PathBuf {
        let name = reference.replace(['/', ':'], "-");
        self.node.dir().join(name).with_extension("tar")
    }

    fn import(&self, archive: &Path, flags: &[&str]) -> Result<u64> {
        let size = fs::metadata(archive)?.len();
        let path = archive.display().to_string();
        let mut import = vec!["image", "import"];
        import.extend(flags);
        import.push(&path);
        self.node.ctr_ok(&import)?;
        fs::remove_file(archive)?;
        Ok(size)
    }
}
