//! Loads a program from a cache, says how that went and keeps the code in use
//! until standard input ends: what a container does, without the container.
//!
//! `load SETTINGS PROGRAM [ahead]`

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use wisp_aot::{Cache, Compiler, Digest};
use wisp_config::Config;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [settings, program, rest @ ..] = args.as_slice() else {
        return Err("load SETTINGS PROGRAM [ahead]".into());
    };
    let config = Config::load(Some(Path::new(settings)))?;
    let mut cache = Cache::from_config(&config);
    if rest.first().is_some_and(|word| word == "ahead") {
        cache = cache.ahead();
    }
    let digest = Digest::of(&mut File::open(program)?)?;
    let artifact = cache.load(
        &digest,
        &mut || Ok(Box::new(File::open(program)?)),
        &Compiler::from_config(&config),
    )?;
    let how = match (artifact.cached, &artifact.warning) {
        (true, None) => "cached".into(),
        (false, None) => "compiled".into(),
        (_, Some(warning)) => format!("warning: {warning}"),
    };
    println!("{how}");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
