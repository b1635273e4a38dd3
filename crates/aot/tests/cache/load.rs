//! What a load gives, and when it does not.

use super::*;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::time::Instant;

#[test]
fn a_program_is_compiled_once() {
    let node = Node::new();
    let mut first = node.load(COPY).expect("compiled");
    assert!(!first.cached);
    assert_eq!(content(&mut first), "code:a program");
    let mut second = node.load("exit 1").expect("kept");
    assert!(second.cached);
    assert_eq!(second.warning, None);
    assert_eq!(content(&mut second), "code:a program");
    assert_eq!(node.opened.get(), 1);
    assert_eq!(node.files(), [Key::new(&digest()).file_name()]);
}

#[test]
fn nobody_can_write_to_code_that_is_kept() {
    let node = Node::new();
    let artifact = node.load(COPY).expect("compiled");
    let mode = artifact
        .file
        .metadata()
        .expect("metadata")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o400);
    assert!(io::Write::write(&mut &artifact.file, b"x").is_err());
    let dir = fs::metadata(node.cache_dir()).expect("dir").permissions();
    assert_eq!(dir.mode() & 0o077, 0);
}

#[test]
fn the_compiler_says_what_is_wrong() {
    let node = Node::new();
    let error = node.refused("exec /bin/cat >&2; exit 1");
    // `exec` replaced the shell, so the code is cat's: a success without code.
    assert!(error.contains("wrote no code"), "{error}");
    let error = node.refused("/bin/cat >/dev/null; echo 'invalid WebAssembly: bad' >&2; exit 1");
    assert_eq!(error, "invalid WebAssembly: bad");
    let error = node.refused("exit 3");
    assert!(error.contains("exit status: 3"), "{error}");
}

#[test]
fn a_compiler_that_stops_reading_still_says_what_is_wrong() {
    const LARGE: usize = 4 << 20;
    let node = Node::new();
    let error = node
        .cache()
        .load(
            &Digest::of(&mut io::repeat(7).take(LARGE as u64)).expect("bytes"),
            &mut || Ok(Box::new(io::repeat(7).take(LARGE as u64))),
            &node.compiler("exec 0<&-; echo enough >&2; exit 1"),
        )
        .expect_err("no code");
    assert_eq!(error.to_string(), "enough");
}

#[test]
fn a_compiler_that_talks_without_end_neither_blocks_nor_fills_memory() {
    let node = Node::new();
    let error =
        node.refused("/usr/bin/head -c 4000000 /dev/zero | /usr/bin/tr '\\0' x >&2; exit 1");
    assert_eq!(error.len(), 8 * 1024);
}

#[test]
fn a_compiler_that_cannot_be_started_is_named() {
    let node = Node::new();
    let missing = Compiler::new("/nowhere/wisp".into(), node.timeout);
    let error = node
        .cache()
        .load(&digest(), &mut || Ok(Box::new(PROGRAM)), &missing)
        .expect_err("no compiler");
    let text = error.to_string();
    assert!(matches!(error, AotError::Start { .. }), "{text}");
    assert!(text.contains("/nowhere/wisp"), "{text}");
    assert!(text.contains("compiler.path"), "{text}");
}

#[test]
fn a_compiler_that_takes_too_long_is_killed() {
    let mut node = Node::new();
    node.timeout = Duration::from_millis(100);
    let begun = Instant::now();
    for script in ["exec /bin/sleep 60", "exec 2>&-; exec /bin/sleep 60"] {
        let error = node.refused(script);
        assert!(error.contains("did not finish"), "{error}");
        assert!(error.contains("compiler.timeout_seconds"), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "waited for it");
}

#[test]
fn a_compiler_that_is_killed_leaves_nothing() {
    let error = Node::new().refused("printf half; kill -9 $$");
    assert!(error.contains("signal 9"), "{error}");
}

#[test]
fn bytes_that_are_not_what_the_digest_says_are_not_run() {
    let node = Node::new();
    let error = node
        .load_bytes(COPY, b"another program")
        .expect_err("mismatch");
    let text = error.to_string();
    let found = Digest::of(&mut Cursor::new(b"another program")).expect("bytes");
    assert!(text.contains(&digest().to_string()), "{text}");
    assert!(text.contains(&found.to_string()), "{text}");
    assert!(node.files().is_empty());
}

#[test]
fn a_program_that_cannot_be_read_is_named() {
    let node = Node::new();
    let error = node
        .cache()
        .load(
            &digest(),
            &mut || Err(io::Error::other("gone")),
            &node.compiler(COPY),
        )
        .expect_err("no program")
        .to_string();
    assert!(error.contains(&digest().to_string()), "{error}");
    assert!(error.contains("gone"), "{error}");
}

#[test]
fn the_compiler_gets_no_environment() {
    let node = Node::new();
    let mut artifact = node
        .load("/bin/cat >/dev/null; /usr/bin/env")
        .expect("compiled");
    let content = content(&mut artifact);
    // What the shell sets by itself.
    for line in content.lines() {
        assert!(
            ["PWD=", "SHLVL=", "_=", "OLDPWD="]
                .iter()
                .any(|own| line.starts_with(own)),
            "{content}"
        );
    }
}

#[test]
fn a_directory_that_cannot_be_used_means_code_in_memory_and_a_warning() {
    let node = Node::new();
    fs::write(node.dir.path().join("var"), "a file").expect("write");
    let mut artifact = node.load(COPY).expect("compiled");
    assert!(!artifact.cached);
    assert_eq!(content(&mut artifact), "code:a program");
    let warning = artifact.warning.expect("a warning");
    assert!(warning.contains("var/cache"), "{warning}");
    assert!(warning.contains("cache.dir"), "{warning}");
}

#[test]
fn a_directory_that_others_can_write_is_not_trusted() {
    let node = Node::new();
    node.load(COPY).expect("compiled");
    fs::set_permissions(node.cache_dir(), Permissions::from_mode(0o777)).expect("chmod");
    let artifact = node.load("printf fresh; exec /bin/cat").expect("compiled");
    assert!(!artifact.cached);
    assert!(
        artifact
            .warning
            .expect("a warning")
            .contains("written by others")
    );
}

#[test]
fn what_may_not_be_our_own_code_is_replaced() {
    type Spoil = fn(&Node);
    let spoils: [Spoil; 5] = [
        |node| {
            fs::set_permissions(node.code_path(), Permissions::from_mode(0o466)).expect("chmod");
        },
        |node| fs::write(node.code_path(), "").expect("empty"),
        |node| {
            fs::remove_file(node.code_path()).expect("remove");
            symlink("/etc/passwd", node.code_path()).expect("link");
        },
        |node| {
            fs::remove_file(node.code_path()).expect("remove");
            let status = std::process::Command::new("mkfifo")
                .arg(node.code_path())
                .status();
            assert!(status.expect("mkfifo").success());
        },
        |node| {
            std::os::unix::fs::chown(node.code_path(), Some(65534), None).expect("chown");
        },
    ];
    // Giving a file away takes privileges.
    let count = if nix::unistd::geteuid().is_root() {
        5
    } else {
        4
    };
    for spoil in &spoils[..count] {
        let node = Node::new();
        node.load(COPY).expect("compiled");
        spoil(&node);
        let mut artifact = node.load(COPY).expect("compiled again");
        assert!(!artifact.cached);
        assert_eq!(content(&mut artifact), "code:a program");
        assert!(node.load("exit 1").expect("kept").cached);
    }
}

#[test]
fn many_at_once_all_get_whole_code() {
    let node = Node::new();
    let compiler = node.compiler(COPY);
    let cache = &node.cache();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut artifact = cache
                    .load(&digest(), &mut || Ok(Box::new(PROGRAM)), &compiler)
                    .expect("code");
                assert_eq!(content(&mut artifact), "code:a program");
            });
        }
    });
    assert_eq!(node.files().len(), 1);
}
