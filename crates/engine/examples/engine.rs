//! Compiles a program and runs it on the engine alone, as the tests do.
//!
//! ```text
//! engine FILE [--dir HOST:GUEST[:ro]] [--env NAME=VALUE] [--annotation KEY=VALUE]
//!        [--limit BYTES] [--limit-file FILE] [ARG...]
//! ```
//!
//! Prints `ready` to stderr when the engine says so.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};

use wisp_capability::{Policy, Request, grant};
use wisp_engine::{HostPreopen, Setup};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() {
    match run() {
        Ok(code) => std::process::exit(code),
        Err(error) => {
            eprintln!("refused: {error}");
            std::process::exit(2);
        }
    }
}

fn run() -> Result<i32> {
    let mut words = std::env::args().skip(1);
    let program = words.next().ok_or("no program")?;
    let mut args = vec![program.clone()];
    let mut env = Vec::new();
    let mut annotations = BTreeMap::new();
    let mut preopens = Vec::new();
    let mut limit = None;
    let mut limit_file = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or("a flag without a value");
        match word.as_str() {
            "--dir" => preopens.push(preopen(&value()?)?),
            "--env" => env.push(value()?),
            "--annotation" => {
                let value = value()?;
                let (key, value) = value.split_once('=').ok_or("KEY=VALUE")?;
                annotations.insert(key.into(), value.into());
            }
            "--limit" => limit = Some(value()?.parse()?),
            "--limit-file" => limit_file = Some(File::open(value()?)?),
            _ => args.push(word),
        }
    }
    let grant = grant(&Request {
        args: &args,
        env: &env,
        cwd: "/",
        annotations: &annotations,
        mounts: &[],
        root_readonly: false,
        host_network: true,
        memory_limit: limit,
        namespace: "",
        policy: &Policy::default(),
    })?;
    let prepared = wisp_engine::prepare(code(&program)?, &grant)?;
    eprintln!("world: {}", prepared.world());
    Ok(prepared.run(Setup {
        preopens,
        memory_limit: limit_file,
        ledger: wisp_engine::ledger::Ledger::own(),
        cpu_limit: wisp_engine::CpuLimit::default(),
        config: grant.config_dir.clone().map(Into::into),
        grant,
        ready: Box::new(|result| match result {
            Ok(()) => eprintln!("ready"),
            Err(reason) => eprintln!("not ready: {reason}"),
        }),
    }))
}

fn preopen(text: &str) -> Result<HostPreopen> {
    let mut parts = text.split(':');
    Ok(HostPreopen {
        host: parts.next().ok_or("HOST")?.into(),
        guest: parts.next().ok_or("GUEST")?.into(),
        writable: parts.next() != Some("ro"),
    })
}

fn code(program: &str) -> Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&wisp_aot::compile(&std::fs::read(program)?)?)?;
    file.rewind()?;
    Ok(file)
}
