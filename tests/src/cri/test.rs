//! What a test with pods is given.

use super::api::{ImageSpec, ImageStatusRequest};
use super::client::Client;
use super::node::Node;
use super::pod::{DescribePod, Pod};
use super::remains;
use crate::containerd::own_name;
use crate::images::{self, Images};
use crate::suite::World;
use crate::wait::{self, PATIENCE};
use crate::{Version, leaks, oci, paths};
use anyhow::{Context, Result, bail};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Tests that drive pods over the CRI.
#[derive(Clone, Copy, Debug)]
pub struct Pods;

impl World for Pods {
    type Node = Node;
    type Test<'a> = Test<'a>;
    type Body = fn(&Test<'_>) -> Result<()>;

    fn start(version: Version) -> Result<Node> {
        Node::start(version)
    }

    fn stop(node: &Node) {
        node.stop();
    }

    fn test<'a>(node: &'a Node, images: &'a Images) -> Result<Test<'a>> {
        Test::new(node, images)
    }

    fn run(test: &Test<'_>, body: Self::Body) -> Result<()> {
        body(test)
    }

    fn nothing_left(test: &Test<'_>) -> Result<()> {
        test.nothing_left()
    }

    fn log_about(test: &Test<'_>) -> String {
        test.log()
    }
}

/// What the harness must know of a pod to find what is left of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its id.
    pub id: String,
    /// Its address, unless it has the host's.
    pub address: Option<String>,
    /// Its network namespace's file, unless it has the host's.
    pub namespace: Option<PathBuf>,
    /// Whether the test has removed it.
    pub removed: bool,
}

/// A connection, a name, images, and a directory for files.
#[derive(Debug)]
pub struct Test<'a> {
    /// The containerd that the test runs under.
    pub node: &'a Node,
    images: &'a Images,
    client: Client,
    name: String,
    pods: RefCell<Vec<Known>>,
    containers: RefCell<Vec<String>>,
    dir: TempDir,
}

impl<'a> Test<'a> {
    /// A test of its own name.
    ///
    /// # Errors
    /// When containerd does not answer, or there is no temporary directory.
    pub fn new(node: &'a Node, images: &'a Images) -> Result<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}test-", own_name()))
            .tempdir()?;
        // Containers' users must be able to reach their volumes.
        fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        Ok(Self {
            client: Client::connect(node.as_ref())?,
            node,
            images,
            // The end is marked: names are searched for, and `1` is in `10`.
            name: format!("{}{count}-t", own_name()),
            pods: RefCell::default(),
            containers: RefCell::default(),
            dir,
        })
    }

    /// Which containerd it is.
    pub fn version(&self) -> Version {
        self.node.as_ref().version()
    }

    /// The API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What everything of the test is named after: pods, and their cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for the test's files, which anybody may enter.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a directory there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn volume(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Writes a file there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.dir().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content)?;
        Ok(path)
    }

    /// The image of an example guest at `/NAME.wasm`, which it starts.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn image(&self, guest: &str) -> Result<String> {
        let program = paths::guest(guest)?;
        self.built(guest, |reference, output| {
            images::pack(&program, reference, &[], output)
        })
    }

    /// A busybox image.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn busybox(&self) -> Result<String> {
        self.built("busybox", oci::busybox)
    }

    /// An image put together by hand. The name must be used for the same
    /// content in all tests.
    ///
    /// # Errors
    /// When it cannot be made or imported.
    pub fn built(
        &self,
        name: &str,
        make: impl FnOnce(&str, &Path) -> Result<()>,
    ) -> Result<String> {
        let reference = format!("localhost/wisp/{name}:test");
        self.node
            .import_made(self.images, &reference, |output| make(&reference, output))?;
        self.knows(&reference)?;
        Ok(reference)
    }

    /// Imports the image called `reference` from an archive.
    ///
    /// # Errors
    /// When it cannot be imported.
    pub fn import(&self, reference: &str, archive: PathBuf) -> Result<()> {
        self.node.import(reference, || Ok(archive))?;
        self.knows(reference)
    }

    fn knows(&self, reference: &str) -> Result<()> {
        // The plugin hears of new images by an event.
        let known = wait::until(PATIENCE, || {
            let request = ImageStatusRequest {
                image: Some(ImageSpec {
                    image: reference.to_owned(),
                    ..ImageSpec::default()
                }),
                verbose: false,
            };
            let answer = self
                .client
                .images("ImageStatus", async |mut to| to.image_status(request).await);
            answer.ok()?.image.map(drop)
        });
        known.with_context(|| format!("the CRI does not know the image {reference}"))
    }

    /// A pod to be described further and run with the runtime `wisp`.
    pub fn pod(&self, name: &str) -> DescribePod<'_, 'a> {
        DescribePod::new(self, name)
    }

    pub(super) fn know_pod(&self, known: Known) {
        self.pods.borrow_mut().push(known);
    }

    pub(super) fn know_removed(&self, id: &str) {
        for pod in self.pods.borrow_mut().iter_mut() {
            pod.removed |= pod.id == id;
        }
    }

    pub(super) fn know_container(&self, id: &str) {
        self.containers.borrow_mut().push(id.to_owned());
    }

    /// The ids of all pods and containers that the test has made.
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self
            .pods
            .borrow()
            .iter()
            .map(|pod| pod.id.clone())
            .collect();
        ids.extend(self.containers.borrow().iter().cloned());
        ids
    }

    fn log(&self) -> String {
        let ids = self.ids();
        let log = self.node.as_ref().log();
        let lines: Vec<String> = log
            .lines()
            .filter(|line| line.contains(&self.name) || ids.iter().any(|id| line.contains(id)))
            // Whole specs are logged, too.
            .map(|line| line.chars().take(700).collect())
            .collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    /// Ends the pods as kubelet does, and proves that nothing is left of them.
    pub fn nothing_left(&self) -> Result<()> {
        let pods = self.pods.borrow().clone();
        for known in pods.iter().filter(|pod| !pod.removed) {
            let pod = Pod::of(self, &known.id);
            pod.stop()?;
            pod.remove()?;
        }
        let (ids, mut left) = (self.ids(), Vec::new());
        let clean = wait::until(leaks::GONE, || {
            left = remains::of(self.node, &self.name, &ids, &pods);
            left.is_empty().then_some(())
        });
        if clean.is_none() {
            bail!(
                "left behind {:?} after the end:\n  {}",
                leaks::GONE,
                left.join("\n  ")
            );
        }
        leaks::remove_empty_cgroups(&self.name);
        self.pods.borrow_mut().clear();
        Ok(())
    }
}

impl Drop for Test<'_> {
    fn drop(&mut self) {
        // Only a failed test leaves anything to sweep.
        for known in self.pods.take() {
            let pod = Pod::of(self, &known.id);
            let _ = pod.stop();
            let _ = pod.remove();
        }
        self.node.as_ref().sweep(&self.name);
    }
}
