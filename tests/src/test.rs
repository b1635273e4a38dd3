//! What a test is given.

use crate::api::Client;
use crate::command::{self, Ended};
use crate::containerd::own_name;
use crate::images::{self, Images};
use crate::run::Run;
use crate::suite::World;
use crate::{Containerd, Version, leaks, oci, paths, wait};
use anyhow::{Context, Result, bail, ensure};
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// How long one `ctr` may take.
const CTR: Duration = Duration::from_secs(120);

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Tests that drive containerd's tasks, with `ctr` and with its own API.
#[derive(Clone, Copy, Debug)]
pub struct Tasks;

impl World for Tasks {
    type Node = Containerd;
    type Test<'a> = Test<'a>;
    type Body = fn(&Test<'_>) -> Result<()>;

    fn start(version: Version) -> Result<Containerd> {
        Containerd::start(version)
    }

    fn stop(node: &Containerd) {
        node.stop();
    }

    fn test<'a>(node: &'a Containerd, images: &'a Images) -> Result<Test<'a>> {
        Test::new(node, images)
    }

    fn run(test: &Test<'_>, body: Self::Body) -> Result<()> {
        body(test)
    }

    fn nothing_left(test: &Test<'_>) -> Result<()> {
        test.nothing_left()
    }

    fn log_about(test: &Test<'_>) -> String {
        test.node.log_about(test.namespace())
    }
}

/// A namespace of its own in a containerd, images, and a directory for files.
#[derive(Debug)]
pub struct Test<'a> {
    /// The containerd that the test runs under.
    pub node: &'a Containerd,
    images: &'a Images,
    namespace: String,
    ids: RefCell<Vec<String>>,
    imported: RefCell<HashSet<String>>,
    programs: RefCell<HashMap<String, String>>,
    client: OnceCell<Client>,
    dir: TempDir,
}

impl<'a> Test<'a> {
    /// A new namespace.
    ///
    /// # Errors
    /// When there is no temporary directory to be had.
    pub fn new(node: &'a Containerd, images: &'a Images) -> Result<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            node,
            images,
            // The end is marked: names are searched for, and `1` is in `10`.
            namespace: format!("{}{count}-t", own_name()),
            ids: RefCell::default(),
            imported: RefCell::default(),
            programs: RefCell::default(),
            client: OnceCell::new(),
            dir: tempfile::Builder::new()
                .prefix(&format!("{}test-", own_name()))
                .tempdir()?,
        })
    }

    /// The test's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A directory for the test's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.dir().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// The API, in the test's namespace.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn api(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::connect(self.node, &self.namespace)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Runs `ctr` in the test's namespace.
    ///
    /// # Errors
    /// When it does not end. That it fails is no error here.
    pub fn ctr(&self, args: &[&str]) -> Result<Ended> {
        let mut ctr = self.node.ctr(&self.namespace);
        command::run(ctr.args(args), Vec::new(), CTR)
    }

    /// Runs `ctr` and takes nothing but success.
    ///
    /// # Errors
    /// What it said.
    pub fn ctr_ok(&self, args: &[&str]) -> Result<Ended> {
        let ended = self.ctr(args)?;
        ensure!(
            ended.code == 0,
            "ctr {args:?} exited {}: {}",
            ended.code,
            ended.err()
        );
        Ok(ended)
    }

    /// A container id that is new in this test.
    pub fn new_id(&self) -> String {
        let mut ids = self.ids.borrow_mut();
        let id = format!("c{}", ids.len() + 1);
        ids.push(id.clone());
        id
    }

    /// Makes the harness look for what `id` leaves, too: a container or pod
    /// whose id the test has chosen.
    pub fn know(&self, id: &str) {
        self.ids.borrow_mut().push(id.to_owned());
    }

    /// The image of an example guest at `/NAME.wasm`, imported.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn image(&self, guest: &str) -> Result<String> {
        self.packed(guest, &paths::guest(guest)?, &[])
    }

    /// Packs the Wasm file at `program` with more arguments to `wisp pack`. The
    /// name must be used for the same content in all tests.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn packed(&self, name: &str, program: &Path, more: &[&str]) -> Result<String> {
        let reference = reference(name);
        self.import_made(&reference, |output| {
            images::pack(program, &reference, more, output)
        })?;
        let name = program.file_name().context("the program has no name")?;
        self.starts(&reference, &format!("/{}", name.to_string_lossy()));
        Ok(reference)
    }

    /// Says what the image `reference` starts, so that a test need not repeat
    /// it with each argument: `ctr` puts arguments in place of the entrypoint.
    pub fn starts(&self, reference: &str, program: &str) {
        self.programs
            .borrow_mut()
            .insert(reference.to_owned(), program.to_owned());
    }

    /// What [`Self::starts`] was told of an image.
    pub(crate) fn program(&self, reference: &str) -> Option<String> {
        self.programs.borrow().get(reference).cloned()
    }

    /// A busybox image, imported.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn busybox(&self) -> Result<String> {
        let reference = reference("busybox");
        self.import_made(&reference, |output| oci::busybox(&reference, output))?;
        Ok(reference)
    }

    /// An image put together by hand, imported. The name must be used for the
    /// same content in all tests.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn built(
        &self,
        name: &str,
        make: impl FnOnce(&str, &Path) -> Result<()>,
    ) -> Result<String> {
        let reference = reference(name);
        self.import_made(&reference, |output| make(&reference, output))?;
        Ok(reference)
    }

    fn import_made(&self, reference: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if !self.imported.borrow_mut().insert(reference.to_owned()) {
            return Ok(());
        }
        let tar = self.images.get(reference, make)?;
        self.import(&tar)
    }

    /// Imports an image tar.
    ///
    /// # Errors
    /// What `ctr` said.
    pub fn import(&self, tar: &Path) -> Result<()> {
        let tar = tar.to_str().context("path")?;
        self.ctr_ok(&["image", "import", tar]).map(drop)
    }

    /// A container of `image`, to be described further and run.
    pub fn run(&self, image: &str) -> Run<'_, 'a> {
        Run::new(self, image)
    }

    /// What there is of the test's containers at the moment.
    pub fn remains(&self) -> Vec<String> {
        leaks::of(self.node, &self.namespace, &self.ids.borrow())
    }

    /// Proves that nothing is left of the test's containers.
    ///
    /// # Errors
    /// What is left.
    pub fn nothing_left(&self) -> Result<()> {
        let mut left = Vec::new();
        let clean = wait::until(leaks::GONE, || {
            left = self.remains();
            left.is_empty().then_some(())
        });
        if clean.is_none() {
            bail!(
                "left behind {:?} after the end:\n  {}",
                leaks::GONE,
                left.join("\n  ")
            );
        }
        let containers = self.ctr_ok(&["container", "ls", "-q"])?;
        ensure!(
            containers.stdout.is_empty(),
            "the test left containers: {}",
            containers.out()
        );
        Ok(())
    }
}

impl Drop for Test<'_> {
    fn drop(&mut self) {
        // Only a failed test leaves anything to sweep.
        self.node.sweep(&self.namespace);
    }
}

fn reference(name: &str) -> String {
    format!("localhost/wisp/{name}:test")
}
