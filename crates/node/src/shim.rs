//! The shim's binary, found as containerd finds it.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::SHIM;

/// Where containerd would find the shim: `named`, if the runtime has a path of
/// its own, else along the search path, else beside containerd itself.
pub fn find(
    named: Option<&Path>,
    search: Option<&OsStr>,
    containerd: Option<&Path>,
) -> Option<PathBuf> {
    if let Some(named) = named {
        return named.exists().then(|| named.to_owned());
    }
    let dirs = search
        .map(|search| std::env::split_paths(search).collect::<Vec<_>>())
        .unwrap_or_default();
    dirs.into_iter()
        .chain(containerd.and_then(Path::parent).map(Path::to_owned))
        .map(|dir| dir.join(SHIM))
        .find(|path| path.is_file())
}

/// Whether somebody may execute the file at `path`.
pub fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The version that the shim at `path` says it is.
///
/// # Errors
/// Why it does not say so, in one line.
pub fn version(path: &Path) -> Result<String, String> {
    let said = Command::new(path)
        .arg("-v")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&said.stdout);
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Version:"))
        .map(|version| version.trim().to_owned())
        .filter(|version| !version.is_empty())
        .ok_or_else(|| {
            format!(
                "`{} -v` ended with {} and said no version",
                path.display(),
                said.status
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).expect("write");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn the_search_path_comes_before_containerds_own_directory() {
        let (first, second) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        let containerd = second.path().join("containerd");
        let search = Some(first.path().as_os_str());
        assert_eq!(find(None, search, Some(&containerd)), None);
        write(&second.path().join(SHIM), "", 0o755);
        assert_eq!(
            find(None, search, Some(&containerd)),
            Some(second.path().join(SHIM))
        );
        write(&first.path().join(SHIM), "", 0o644);
        let found = find(None, search, Some(&containerd)).expect("found");
        assert_eq!(found, first.path().join(SHIM));
        assert!(!is_executable(&found));
        assert_eq!(find(Some(Path::new("/none")), search, None), None);
    }

    #[test]
    fn the_version_is_what_the_shim_says() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join(SHIM);
        write(&path, "#!/bin/sh\necho x\necho '  Version: 9.9.9'\n", 0o755);
        assert_eq!(version(&path), Ok("9.9.9".to_owned()));
        write(&path, "#!/bin/sh\nexit 3\n", 0o755);
        assert!(version(&path).is_err_and(|error| error.contains("3")));
    }
}
