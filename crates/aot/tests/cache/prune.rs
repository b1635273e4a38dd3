//! What goes from the cache, and what stays.

use super::*;
use wisp_aot::{Limits, Pruned};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn prune(node: &Node, limits: &Limits) -> Pruned {
    node.cache().prune(limits, false).expect("pruned")
}

/// The code of three programs, last used days ago: the first longest ago.
fn three(node: &Node) -> [PathBuf; 3] {
    let paths = [node.add(b"one"), node.add(b"two"), node.add(b"three")];
    for (path, days) in paths.iter().zip([3, 2, 1]) {
        age(path, DAY * days);
    }
    paths
}

/// The code of a program under the name that another version would give it.
fn of_another_version(node: &Node) -> PathBuf {
    let path = node.add(b"a program of the past");
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .expect("name");
    let other = node
        .cache_dir()
        .join(format!("{}0123456789abcdef.aot", &name[..65]));
    fs::rename(path, &other).expect("rename");
    other
}

#[test]
fn the_least_recently_used_goes_first_and_only_as_far_as_needed() {
    let node = Node::new();
    let [one, two, three] = three(&node);
    let sizes = [&one, &two, &three].map(|path| fs::metadata(path).expect("file").len());
    let limits = Limits {
        max_size: Some(sizes.iter().sum::<u64>() - 1),
        ..Limits::default()
    };
    let pruned = prune(&node, &limits);
    assert_eq!(pruned.removed.len(), 1);
    assert_eq!(pruned.left, 2);
    assert_eq!(pruned.left_size, sizes[1] + sizes[2]);
    assert!(!one.exists() && two.exists() && three.exists());
    // A use makes it the last in line.
    let digest = Digest::of(&mut &b"two"[..]).expect("bytes");
    let compiler = node.compiler("exit 1");
    let load = node
        .cache()
        .load(&digest, &mut || Ok(Box::new(&b"two"[..])), &compiler);
    assert!(load.expect("kept").cached);
    let limits = Limits {
        max_size: Some(sizes[1]),
        ..Limits::default()
    };
    prune(&node, &limits);
    assert!(two.exists() && !three.exists());
}

#[test]
fn adding_code_makes_room_for_it() {
    let node = Node::new();
    let mut config = node.config();
    config.cache.max_size_mib = 1;
    let cache = Cache::from_config(&config);
    let compiler = node.compiler("/bin/cat; exec /usr/bin/head -c 400000 /dev/zero");
    let programs: [&'static [u8]; 4] = [b"1", b"2", b"3", b"4"];
    for (at, program) in programs.into_iter().enumerate() {
        let digest = Digest::of(&mut &*program).expect("bytes");
        cache
            .load(&digest, &mut || Ok(Box::new(program)), &compiler)
            .expect("compiled");
        let path = node.cache_dir().join(Key::new(&digest).file_name());
        age(&path, DAY * (10 - u32::try_from(at).expect("small")));
    }
    assert_eq!(node.files().len(), 2);
    let left = cache.entries().expect("entries");
    let last = Digest::of(&mut &b"4"[..]).expect("bytes");
    assert_eq!(*left[1].key.program(), last);
}

#[test]
fn what_is_in_use_stays() {
    let node = Node::new();
    let artifact = node.load(COPY).expect("compiled");
    age(&node.code_path(), DAY * 100);
    let all = Limits {
        all: true,
        max_size: Some(0),
        older_than: Some(DAY),
        other_versions: None,
    };
    let pruned = prune(&node, &all);
    assert_eq!((pruned.removed.len(), pruned.in_use.len()), (0, 1));
    assert_eq!(pruned.left, 1);
    assert!(node.code_path().exists());
    // A duplicate counts as well: the one that a guest's process keeps.
    let duplicate = artifact.file.try_clone().expect("duplicate");
    drop(artifact);
    assert_eq!(prune(&node, &all).in_use.len(), 1);
    drop(duplicate);
    let pruned = prune(&node, &all);
    assert_eq!((pruned.removed.len(), pruned.in_use.len()), (1, 0));
    assert_eq!(node.files(), Vec::<String>::new());
}

#[test]
fn what_is_removed_all_the_same_keeps_its_bytes_for_who_has_it() {
    let node = Node::new();
    let mut artifact = node.load(COPY).expect("compiled");
    let cache = node.cache();
    let entry = cache.entries().expect("entries").remove(0);
    assert!(entry.is_in_use());
    assert!(!cache.remove_entry(&entry, false));
    assert!(cache.remove_entry(&entry, true));
    assert!(!node.code_path().exists());
    assert_eq!(content(&mut artifact), "code:a program");
}

#[test]
fn what_was_not_used_for_long_goes() {
    let node = Node::new();
    let [one, two, three] = three(&node);
    let limits = Limits {
        older_than: Some(DAY * 2),
        ..Limits::default()
    };
    assert_eq!(prune(&node, &limits).removed.len(), 2);
    assert!(!one.exists() && !two.exists() && three.exists());
}

#[test]
fn other_versions_go_only_after_their_time() {
    let node = Node::new();
    let other = of_another_version(&node);
    let own = node.add(b"one");
    age(&own, DAY * 9);
    age(&other, DAY * 6);
    let limits = Limits {
        other_versions: Some(DAY * 7),
        ..Limits::default()
    };
    assert_eq!(prune(&node, &limits).removed.len(), 0);
    age(&other, DAY * 8);
    let pruned = prune(&node, &limits);
    assert_eq!(pruned.removed.len(), 1);
    assert!(!pruned.removed[0].is_current());
    assert!(own.exists() && !other.exists());
}

#[test]
fn a_trial_changes_nothing() {
    let node = Node::new();
    three(&node);
    fs::write(
        node.cache_dir()
            .join(format!(".lock-{}", &code_name()[..81])),
        "",
    )
    .expect("write");
    let all = Limits {
        all: true,
        ..Limits::default()
    };
    let pruned = node.cache().prune(&all, true).expect("pruned");
    assert_eq!((pruned.removed.len(), pruned.left), (3, 0));
    assert_eq!(node.files().len(), 4);
}

#[test]
fn what_killed_processes_left_goes_and_strangers_stay() {
    let node = Node::new();
    let one = node.add(b"one");
    let key = code_name().replace(".aot", "");
    for name in [
        format!(".lock-{key}"),
        format!(".compiling-{key}"),
        format!(".compiling-ahead-{key}"),
        ".compiling-Ab3dEf".into(),
        ".compiling-young1".into(),
        "README".into(),
        ".lock-me".into(),
    ] {
        fs::write(node.cache_dir().join(name), "half").expect("write");
    }
    age(&node.cache_dir().join(".compiling-Ab3dEf"), DAY * 2);
    prune(&node, &Limits::default());
    let mut files = node.files();
    files.sort();
    let one = one
        .file_name()
        .and_then(|name| name.to_str())
        .expect("name");
    assert_eq!(files, [".compiling-young1", ".lock-me", one, "README"]);
}

#[test]
fn a_directory_that_is_not_there_is_empty() {
    let node = Node::new();
    assert_eq!(node.cache().entries().expect("entries").len(), 0);
    assert_eq!(prune(&node, &Limits::default()).left, 0);
    assert!(!node.cache_dir().exists());
}

#[test]
fn entries_say_what_they_are() {
    let node = Node::new();
    let path = node.add(b"one");
    let entries = node.cache().entries().expect("entries");
    let [entry] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(entry.path, path);
    assert!(entry.is_current());
    assert!(!entry.is_in_use());
    let trailer = entry.verify().expect("whole");
    assert_eq!(entry.trailer().expect("whole"), trailer);
    assert_eq!((trailer.program_size, trailer.code_size), (3, 8));
    assert_eq!(trailer.wasmtime, wisp_aot::WASMTIME_VERSION);
    flip(&path, 2);
    let error = entry.verify().expect_err("damaged").to_string();
    assert!(error.contains("checksum"), "{error}");
}
