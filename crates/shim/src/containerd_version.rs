//! Which major version of containerd is calling.
//!
//! 1.7 and 2.0 to 2.2 call a shim in exactly the same way, but 1.7 refuses an
//! answer for task API 3, and only with that answer does 2.x reuse a pod's
//! connection. The binary that containerd names for publishing events is
//! containerd itself, so it is asked once; the answer is kept for as long as
//! that file does not change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where answers are kept; gone with the next boot.
const STATE: &str = "/run/wisp";

/// The major version of the containerd at `binary`, if it will tell.
pub fn major(binary: &str) -> Option<u32> {
    let meta = fs::metadata(binary).ok()?;
    let kept = PathBuf::from(STATE).join(format!(
        "containerd-{}-{}-{}",
        meta.dev(),
        meta.ino(),
        meta.mtime()
    ));
    if let Ok(text) = fs::read_to_string(&kept) {
        return text.trim().parse().ok();
    }
    let output = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let major = parse(&String::from_utf8_lossy(&output.stdout))?;
    keep(&kept, major);
    Some(major)
}

/// Failing to keep the answer only costs asking again.
fn keep(path: &Path, major: u32) {
    let temporary = path.with_extension(std::process::id().to_string());
    if fs::create_dir_all(STATE).is_ok()
        && fs::write(&temporary, major.to_string()).is_ok()
        && fs::rename(&temporary, path).is_err()
    {
        let _ = fs::remove_file(&temporary);
    }
}

/// The first word that looks like a version, as in
/// `containerd github.com/containerd/containerd/v2 2.1.9~ds1 abcdef`.
fn parse(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches('v').split_once('.')?;
        rest.starts_with(|c: char| c.is_ascii_digit())
            .then(|| major.parse().ok())
            .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_among_other_words() {
        for (text, major) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
                Some(1),
            ),
            (
                "containerd github.com/containerd/containerd v1.7.20 8fc6bcff",
                Some(1),
            ),
            (
                "containerd github.com/containerd/containerd/v2 2.1.9~ds1-1 2.1.9",
                Some(2),
            ),
            (
                "containerd github.com/containerd/containerd/v2 v2.3.0 abc",
                Some(2),
            ),
            ("", None),
            ("k3s.io nothing here", None),
        ] {
            assert_eq!(parse(text), major, "{text}");
        }
    }
}
