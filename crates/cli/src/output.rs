//! Where binary output goes: a file that appears whole or not at all, or
//! standard output if that is no terminal.

use std::fs::Permissions;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Writes what `fill` gives to `path`, `-` meaning standard output.
///
/// # Errors
/// Those of `fill`, and those of the output; then there is no new file.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path == Path::new("-") {
        return fill(&mut stdout()?);
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    if path.is_dir() {
        bail!("{}: is a directory; name a file", path.display());
    }
    let mut file = tempfile::Builder::new()
        .prefix(".wisp-")
        // Less the umask, as for any new file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .with_context(|| format!("write {}", path.display()))?;
    let mut buffer = BufWriter::new(&mut file);
    fill(&mut buffer)?;
    buffer
        .flush()
        .with_context(|| format!("write {}", path.display()))?;
    drop(buffer);
    file.persist(path)
        .map(drop)
        .with_context(|| format!("write {}", path.display()))
}

/// Standard output for bytes that no terminal understands.
///
/// # Errors
/// When it is a terminal.
pub fn stdout() -> Result<impl Write> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        bail!("standard output is a terminal: redirect it to a file or a pipe");
    }
    Ok(BufWriter::new(stdout.lock()))
}
