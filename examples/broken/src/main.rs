//! Assembles the `.wat` files of this folder: `broken OUTPUT_DIRECTORY`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    match assemble() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("broken: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn assemble() -> Result<(), String> {
    let output: PathBuf = env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("give the directory to write to")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(sources).map_err(|e| format!("{}: {e}", sources.display()))?;
    for entry in entries {
        let source = entry.map_err(|e| e.to_string())?.path();
        let (Some(name), Some("wat")) = (
            source.file_stem(),
            source.extension().and_then(|e| e.to_str()),
        ) else {
            continue;
        };
        let bytes = wat::parse_file(&source).map_err(|e| e.to_string())?;
        let target = output.join(name).with_extension("wasm");
        fs::write(&target, bytes).map_err(|e| format!("{}: {e}", target.display()))?;
    }
    Ok(())
}
