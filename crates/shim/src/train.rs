//! Serves an HTTP component as its container would, without one: so that a program
//! that counts what it executes, which writes a file at its end, can be put under
//! load. It has to be this program: with the compiler linked in, as `wisp` has it,
//! the same functions have other names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::ExitCode;

use anyhow::{Context, bail};
use wisp_aot::{Cache, Compiler, Digest};
use wisp_capability::{Request, annotation};
use wisp_config::Config;
use wisp_engine::ledger::Ledger;
use wisp_engine::{CpuLimit, Setup};

/// Serves until a signal says to stop.
///
/// # Errors
/// Whatever keeps the component from being started.
pub fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let [file, listen, others @ ..] = args else {
        bail!("train FILE ADDRESS:PORT [NAME=VALUE of an annotation]…");
    };
    let mut annotations = BTreeMap::from([
        (annotation::FS_ROOT.to_owned(), "none".to_owned()),
        (annotation::HTTP_LISTEN.to_owned(), listen.clone()),
    ]);
    for other in others {
        let (name, value) = other
            .split_once('=')
            .with_context(|| format!("{other} is not NAME=VALUE"))?;
        annotations.insert(name.to_owned(), value.to_owned());
    }
    let config = Config::load(None)?;
    let grant = wisp_capability::grant(&Request {
        args: std::slice::from_ref(file),
        env: &[],
        cwd: "/",
        annotations: &annotations,
        mounts: &[],
        root_readonly: false,
        host_network: true,
        memory_limit: None,
        namespace: "",
        policy: &config.policy(),
    })?;
    let mut program = File::open(file).with_context(|| file.clone())?;
    let digest = Digest::of(&mut program)?;
    let mut open = || {
        let mut again = program.try_clone()?;
        again.rewind()?;
        Ok(Box::new(again) as Box<dyn Read>)
    };
    let compiler = Compiler::from_config(&config);
    let artifact = Cache::from_config(&config).load(&digest, &mut open, &compiler)?;
    let prepared = wisp_engine::prepare(artifact.file.try_clone()?, &grant)?;
    let code = prepared.run(Setup {
        grant,
        preopens: Vec::new(),
        memory_limit: None,
        ledger: Ledger::own(),
        cpu_limit: CpuLimit::default(),
        config: None,
        ready: Box::new(|started| {
            if let Err(reason) = started {
                eprintln!("train: {reason}");
            }
        }),
    });
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
