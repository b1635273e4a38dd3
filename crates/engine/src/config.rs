//! The values of `wasi:config`: those of annotations, and the files of a
//! directory, as a mounted ConfigMap has them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// All values together, in bytes: what a ConfigMap may have.
const MOST: u64 = 1 << 20;

/// `values`, and the files of `dir` by their names; a value counts more than a
/// file. Files whose names begin with a dot are none.
///
/// # Errors
/// A file that cannot be read or is no text, or too much in all.
pub fn read(
    values: &[(String, String)],
    dir: Option<&Path>,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    let mut left = MOST;
    if let Some(dir) = dir {
        let failed = |path: &Path, error: std::io::Error| {
            format!("values of wasi:config: {}: {error}", path.display())
        };
        for entry in fs::read_dir(dir).map_err(|e| failed(dir, e))? {
            let entry = entry.map_err(|e| failed(dir, e))?;
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // A link leads to the file that is meant.
            let is_file = fs::metadata(&path).is_ok_and(|found| found.is_file());
            if name.starts_with('.') || !is_file {
                continue;
            }
            let mut text = String::new();
            File::open(&path)
                .and_then(|file| file.take(left + 1).read_to_string(&mut text))
                .map_err(|e| failed(&path, e))?;
            left = left.checked_sub(text.len() as u64).ok_or_else(|| {
                format!(
                    "values of wasi:config in {}: more than 1 MiB",
                    dir.display()
                )
            })?;
            variables.insert(name, text);
        }
    }
    for (name, value) in values {
        variables.insert(name.clone(), value.clone());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn values_are_those_of_files_and_annotations() {
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir(dir.path().join("..data")).expect("dir");
        fs::write(dir.path().join("..data/mode"), "file").expect("write");
        symlink("..data/mode", dir.path().join("mode")).expect("link");
        symlink("..data/mode", dir.path().join("level")).expect("link");
        let values = [("mode".to_owned(), "annotation".to_owned())];
        let read = read(&values, Some(dir.path())).expect("values");
        let all: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(all, [("level", "file"), ("mode", "annotation")]);
    }

    #[test]
    fn what_cannot_be_read_or_is_too_much_is_an_error() {
        assert!(read(&[], Some(Path::new("/no/such/directory"))).is_err());
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("large"), vec![b'x'; (1 << 20) + 1]).expect("write");
        assert!(read(&[], Some(dir.path())).is_err());
        fs::write(dir.path().join("large"), b"\xff\xfe").expect("write");
        assert!(read(&[], Some(dir.path())).is_err());
    }
}
