//! Directories that cannot be used: the code stays in memory, and one warning
//! says so.

use super::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small file system at the place of the cache, which takes root.
struct Small<'a>(&'a Node);

impl<'a> Small<'a> {
    fn new(node: &'a Node, size: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test mounts: run it as root"
        );
        let dir = node.cache_dir();
        fs::create_dir_all(&dir).expect("dir");
        let options = format!("size={size},mode=700");
        mount(
            Some("tmpfs"),
            &dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("mount");
        Self(node)
    }

    fn read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let dir = self.0.cache_dir();
        let none = None::<&str>;
        // A child that another test's thread has just forked may still have
        // what this one had open for writing.
        while let Err(error) = mount(none, &dir, none, flags, none) {
            assert_eq!(error, nix::errno::Errno::EBUSY, "remount");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = umount2(&self.0.cache_dir(), MntFlags::MNT_DETACH);
    }
}

/// Loads what cannot be kept.
fn not_kept(node: &Node, script: &str, why: &str) {
    let mut artifact = node.load(script).expect("compiled");
    assert!(!artifact.cached);
    assert!(content(&mut artifact).starts_with("code:a program"));
    assert!(
        io::Write::write(&mut &artifact.file, b"x").is_err(),
        "it can be changed"
    );
    let warning = artifact.warning.expect("a warning");
    assert!(warning.contains(why), "{warning}");
    assert_eq!(warning.matches("cache.dir").count(), 1, "{warning}");
    let name = node.cache_dir();
    assert!(warning.contains(&name.display().to_string()), "{warning}");
}

/// Compiles to 4 MB.
const LARGE: &str = "printf code:; /bin/cat; exec /usr/bin/head -c 4000000 /dev/zero";

#[test]
fn a_directory_that_cannot_be_made() {
    let node = Node::new();
    fs::write(node.dir.path().join("var"), "a file").expect("write");
    not_kept(&node, COPY, "Not a directory");
}

#[test]
fn a_directory_that_others_can_write() {
    let node = Node::new();
    node.load(COPY).expect("compiled");
    fs::set_permissions(node.cache_dir(), Permissions::from_mode(0o777)).expect("chmod");
    not_kept(&node, COPY, "written by others");
}

#[test]
fn a_read_only_directory_is_used_as_it_is() {
    let node = Node::new();
    let small = Small::new(&node, "1m");
    node.add(b"another program");
    small.read_only();
    not_kept(&node, COPY, "Read-only");
    assert_eq!(node.files().len(), 1);
    let other = Digest::of(&mut &b"another program"[..]).expect("bytes");
    let kept = node
        .cache()
        .load(
            &other,
            &mut || Err(io::Error::other("no")),
            &node.compiler("exit 1"),
        )
        .expect("kept");
    assert!(kept.cached);
    assert_eq!(kept.warning, None);
}

#[test]
fn damaged_code_in_a_read_only_directory_is_not_loaded() {
    let node = Node::new();
    let small = Small::new(&node, "1m");
    node.load(COPY).expect("compiled");
    flip(&node.code_path(), 3);
    small.read_only();
    not_kept(&node, COPY, "damaged");
}

#[test]
fn refused_code_in_a_read_only_directory_is_made_in_memory() {
    let node = Node::new();
    let small = Small::new(&node, "1m");
    let refused = node.load(COPY).expect("compiled");
    small.read_only();
    let compiler = node.compiler("printf new; exec /bin/cat");
    let mut again = node
        .cache()
        .replace(
            &refused,
            &digest(),
            &mut || Ok(Box::new(PROGRAM)),
            &compiler,
        )
        .expect("code");
    assert!(!again.cached);
    assert_eq!(content(&mut again), "newa program");
    assert!(
        again
            .warning
            .is_some_and(|warning| warning.contains("cannot be removed"))
    );
}

#[test]
fn a_full_directory() {
    let node = Node::new();
    let _small = Small::new(&node, "1m");
    let filler = node.cache_dir().join("filler");
    let full = fs::write(filler, vec![1; 2 << 20]).expect_err("full");
    assert_eq!(full.raw_os_error(), Some(nix::libc::ENOSPC));
    not_kept(&node, COPY, "No space left");
    assert_eq!(node.files(), ["filler"]);
}

#[test]
fn a_directory_with_room_for_half_of_it() {
    let node = Node::new();
    let _small = Small::new(&node, "2m");
    not_kept(&node, LARGE, "No space left");
    assert_eq!(node.files(), Vec::<String>::new());
    // Others who waited for it need not try.
    let compiler = &node.compiler(LARGE);
    let cache = &node.cache();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let loaded = cache.load(&digest(), &mut || Ok(Box::new(PROGRAM)), compiler);
                assert!(loaded.expect("compiled").warning.is_some());
            });
        }
    });
    assert_eq!(node.files(), Vec::<String>::new());
}

#[test]
fn without_a_place_for_what_is_known_code_is_checked_each_time() {
    let node = Node::new();
    fs::write(node.dir.path().join("run"), "a file").expect("write");
    node.load(COPY).expect("compiled");
    let kept = node.load("exit 1").expect("kept");
    assert!(kept.cached);
    let warning = kept.warning.expect("a warning");
    assert!(warning.contains("cache.run_dir"), "{warning}");
    flip(&node.code_path(), 3);
    assert!(!node.load(COPY).expect("compiled again").cached);
}
