//! Damaged code is never loaded, and undamaged code is not read to know that.

use super::*;

/// Loads again what was damaged.
fn replaced(node: &Node) {
    let mut artifact = node.load(COPY).expect("compiled again");
    assert!(!artifact.cached);
    let warning = artifact.warning.take().expect("a warning");
    assert!(warning.contains("damaged"), "{warning}");
    assert!(warning.contains(&digest().hex()), "{warning}");
    assert_eq!(content(&mut artifact), "code:a program");
    let again = node.load("exit 1").expect("kept");
    assert!(again.cached);
    assert_eq!(again.warning, None);
    assert_eq!(node.files(), [code_name()]);
}

#[test]
fn code_with_a_changed_byte_is_made_again() {
    for at in [0, 9, 20, 160] {
        let node = Node::new();
        node.load(COPY).expect("compiled");
        flip(&node.code_path(), at);
        replaced(&node);
    }
}

#[test]
fn a_changed_byte_is_noticed_with_the_old_time_of_change_too() {
    let node = Node::new();
    let metadata = node.load(COPY).expect("compiled").file.metadata();
    let modified = metadata.expect("metadata").modified().expect("time");
    flip(&node.code_path(), 3);
    let times = FileTimes::new().set_modified(modified);
    let file = File::open(node.code_path()).expect("open");
    file.set_times(times).expect("set times");
    replaced(&node);
}

#[test]
fn shortened_and_lengthened_code_is_made_again() {
    for length in [1, 20, 165, 167, 4000] {
        let node = Node::new();
        node.load(COPY).expect("compiled");
        assert_eq!(fs::metadata(node.code_path()).expect("file").len(), 166);
        let file = File::options().write(true).open(node.code_path());
        file.and_then(|file| file.set_len(length))
            .expect("set length");
        replaced(&node);
    }
}

#[test]
fn the_code_of_another_program_is_not_loaded() {
    let node = Node::new();
    let other = node.add(b"another program");
    fs::rename(other, node.code_path()).expect("rename");
    replaced(&node);
}

#[test]
fn damage_while_the_machine_was_off_is_noticed() {
    let node = Node::new();
    node.load(COPY).expect("compiled");
    // All that is known goes with a boot.
    fs::remove_dir_all(node.dir.path().join("run")).expect("remove");
    assert!(node.load("exit 1").expect("kept").cached);
    fs::remove_dir_all(node.dir.path().join("run")).expect("remove");
    flip(&node.code_path(), 3);
    replaced(&node);
}

#[test]
fn code_that_is_known_to_be_undamaged_is_not_read() {
    let node = Node::new();
    node.load(COPY).expect("compiled");
    flip(&node.code_path(), 3);
    // Lie: this very file, as it is now, has been read and was right.
    let facts = || fs::read_dir(node.dir.path().join("run/aot")).expect("facts");
    let fact = facts().next().expect("one fact").expect("entry").path();
    let text = fs::read_link(&fact).expect("a link");
    let boot = text.to_str().and_then(|text| text.split_once(' '));
    let now = fs::metadata(node.code_path()).expect("file");
    let lie = format!(
        "{} {} {}.{} {}.{}",
        boot.expect("a boot").0,
        now.size(),
        now.mtime(),
        now.mtime_nsec(),
        now.ctime(),
        now.ctime_nsec()
    );
    fs::remove_file(&fact).expect("remove");
    std::os::unix::fs::symlink(lie, fact).expect("link");
    let mut artifact = node.load("exit 1").expect("kept");
    assert!(artifact.cached);
    assert_eq!(content(&mut artifact), "codd:a program");
    assert_eq!(facts().count(), 1);
}

#[test]
fn recording_a_use_does_not_cost_another_check() {
    let node = Node::new();
    node.load(COPY).expect("compiled");
    age(&node.code_path(), Duration::from_secs(3600));
    // The first load reads the file, as its times have changed.
    node.load("exit 1").expect("kept");
    let used = fs::metadata(node.code_path()).expect("file");
    let unused = SystemTime::now().duration_since(used.accessed().expect("time"));
    assert!(unused.is_ok_and(|age| age < Duration::from_secs(600)));
    let fact = fs::read_dir(node.dir.path().join("run/aot")).expect("facts");
    let fact = fact.last().expect("one fact").expect("entry").path();
    let text = fs::read_link(fact).expect("a link");
    let now = format!("{}.{}", used.ctime(), used.ctime_nsec());
    assert!(
        text.to_str().expect("text").ends_with(&now),
        "{text:?} {now}"
    );
    // The next ones change nothing.
    node.load("exit 1").expect("kept");
    let after = fs::metadata(node.code_path()).expect("file");
    assert_eq!(after.ctime_nsec(), used.ctime_nsec());
}

#[test]
fn refused_code_is_made_again_once() {
    let node = Node::new();
    let refused = node.load(COPY).expect("compiled");
    let compiler = node.compiler("printf new; exec /bin/cat");
    let load = |refused: &Artifact| {
        node.cache()
            .replace(refused, &digest(), &mut || Ok(Box::new(PROGRAM)), &compiler)
            .expect("code")
    };
    let mut again = load(&refused);
    assert!(!again.cached);
    assert_eq!(content(&mut again), "newa program");
    // Who was refused the old code, too, gets the new one.
    let other = load(&refused);
    assert!(other.cached);
    let inode = |artifact: &Artifact| artifact.file.metadata().expect("metadata").ino();
    assert_eq!(inode(&other), inode(&again));
    assert_eq!(node.files(), [code_name()]);
}
