//! Files and directories, as far as the guest's preopens let it.

use crate::{Outcome, argument};
use std::ffi::c_int;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Copies a file to stdout.
pub fn read(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let mut file = fs::File::open(path).map_err(|e| format!("{path}: {e}"))?;
    io::copy(&mut file, &mut io::stdout().lock()).map_err(|e| format!("{path}: {e}"))?;
    Ok(())
}

/// Reads a file again and again, printing what it has each time that is new,
/// until it has `text`.
pub fn watch(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let text = argument(arguments, 1, "the text to wait for")?;
    let mut last = String::new();
    loop {
        let found = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        if found != last {
            println!("{}", found.trim_end());
            last = found;
        }
        if last.trim_end() == text {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Creates or replaces a file.
pub fn write(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let text = argument(arguments, 1, "a text")?;
    fs::write(path, text).map_err(|e| format!("{path}: {e}"))
}

/// Replaces what a file has, and has it kept: its bytes, its length and its time.
pub fn keep(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let text = argument(arguments, 1, "a text")?;
    let kept = || -> io::Result<()> {
        let mut file = fs::File::create(path)?;
        writeln!(file, "{text} and more")?;
        file.sync_all()?;
        file.set_len(text.len() as u64)?;
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
        sync_data(&file)
    };
    kept().map_err(|e| format!("{path}: {e}"))
}

/// What Rust's standard library does not ask for here: its bytes without what is
/// said about them, and that it be read soon.
fn sync_data(file: &fs::File) -> io::Result<()> {
    /// Of WASI's C library.
    const WILL_NEED: c_int = 3;
    // SAFETY: as WASI's C library declares them.
    unsafe extern "C" {
        fn fdatasync(file: c_int) -> c_int;
        fn posix_fadvise(file: c_int, offset: i64, length: i64, advice: c_int) -> c_int;
    }
    let number = file.as_raw_fd();
    // SAFETY: the C library's own, and given a number only; the file is open.
    if unsafe { fdatasync(number) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    match unsafe { posix_fadvise(number, 0, 0, WILL_NEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Adds a line to a file, creating it if need be.
pub fn append(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let text = argument(arguments, 1, "a text")?;
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| writeln!(file, "{text}"))
        .map_err(|e| format!("{path}: {e}"))
}

/// Prints the names in a directory, sorted, directories with a slash.
pub fn list(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    for (name, is_dir) in entries(Path::new(path)).map_err(|e| format!("{path}: {e}"))? {
        println!("{name}{}", if is_dir { "/" } else { "" });
    }
    Ok(())
}

/// Prints every path below a directory; what cannot be opened is named on stderr.
pub fn tree(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let mut pending = vec![Path::new(path).to_path_buf()];
    while let Some(directory) = pending.pop() {
        match entries(&directory) {
            Ok(found) => {
                for (name, is_dir) in found {
                    let child = directory.join(name);
                    println!("{}", child.display());
                    if is_dir {
                        pending.push(child);
                    }
                }
            }
            Err(e) => eprintln!("{}: {e}", directory.display()),
        }
    }
    Ok(())
}

/// Prints where a symbolic link leads.
pub fn link(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let target = fs::read_link(path).map_err(|e| format!("{path}: {e}"))?;
    println!("{}", target.display());
    Ok(())
}

/// Creates one directory.
pub fn mkdir(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    fs::create_dir(path).map_err(|e| format!("{path}: {e}"))
}

/// Removes a file or an empty directory.
pub fn remove(arguments: &[String]) -> Outcome {
    let path = argument(arguments, 0, "a path")?;
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    removed.map_err(|e| format!("{path}: {e}"))
}

fn entries(directory: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.file_type()?.is_dir()));
    }
    found.sort();
    Ok(found)
}
