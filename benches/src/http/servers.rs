//! Who serves, and how each is started.

use crate::contestants::{Contestant, Programs};
use crate::http::cases::{AT_ONCE, Case, Instances, Interface, REUSE};
use crate::http::connection::Exchange;
use crate::http::containers::Containers;
use crate::http::cores::{self, Cores};
use crate::http::running::{Running, free_address};
use crate::http::wasmtime::{Wasmtime, Way};
use anyhow::{Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One who serves.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its name in tables and formulas.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A container: of wisp, which is what users have, or of the peer shim.
    Container(Contestant),
    /// `wisp run`: the same server without a container.
    WispRun(PathBuf),
    Wasmtime(Wasmtime),
    /// The native server.
    Native(PathBuf),
}

/// Where a server is to run.
#[derive(Debug)]
pub struct Place<'a> {
    pub cores: &'a Cores,
    pub containers: &'a Containers,
    /// For the files of servers.
    pub dir: &'a Path,
    /// Where components are.
    pub guests: &'a Path,
    /// The server that components call.
    pub upstream: SocketAddr,
}

/// Everybody who is there, and a line for each one who is not. `contestants` are
/// those with containers.
///
/// # Errors
/// When the native server is missing.
pub fn gather(
    programs: &Programs,
    contestants: &[Contestant],
) -> Result<(Vec<Server>, Vec<String>)> {
    let mut here: Vec<Server> = contestants
        .iter()
        .filter(|one| ["wisp", "wisp-before", "runwasi"].contains(&one.name))
        .map(|one| Server {
            name: one.name,
            kind: Kind::Container(one.clone()),
        })
        .collect();
    let mut missing = Vec::new();
    let mut add = |name, kind| here.push(Server { name, kind });
    add("wisp-run", Kind::WispRun(programs.binaries.join("wisp")));
    if programs.wasmtime.exists() {
        for (name, way) in Way::ALL {
            let program = programs.wasmtime.clone();
            add(name, Kind::Wasmtime(Wasmtime { program, way }));
        }
    } else {
        missing.push("wasmtime: run benches/build.sh peers".to_owned());
    }
    add("hyper", Kind::Native(native()?));
    Ok((here, missing))
}

/// The native server's program, which is built with this one.
fn native() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("bench-native-http");
    ensure!(
        program.exists(),
        "{} is missing: build wisp-bench",
        program.display()
    );
    Ok(program)
}

/// Starts the server that components call, on the client's processors.
///
/// # Errors
/// When it does not answer.
pub fn upstream(cores: &Cores, dir: &Path) -> Result<Running<'static>> {
    let address = free_address()?;
    let mut command = Command::new(native()?);
    command.arg(address.to_string());
    let log = dir.join("upstream.log");
    let mut running = Running::spawn(address, command, &cores.client, &log)?;
    running.wait(&Exchange::get("/", 6))?;
    Ok(running)
}

impl Server {
    /// Whether it serves without Wasm.
    pub fn is_native(&self) -> bool {
        matches!(self.kind, Kind::Native(_))
    }

    /// Whether it can do this, and has something to say by it.
    pub fn does(&self, case: &Case) -> bool {
        let fresh = case.interface == Interface::P2 && case.instances == Instances::Fresh;
        match &self.kind {
            Kind::Container(one) => one.name != "runwasi" || fresh,
            Kind::WispRun(_) => case.name == "hello-02-fresh",
            // Where the guest has much to compute.
            Kind::Wasmtime(Wasmtime { way, .. }) => *way != Way::Timeout || case.computes(),
            Kind::Native(_) => case.is_native(),
        }
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer as it should, with what it said.
    pub fn start<'a>(
        &self,
        case: &Case,
        exchange: &Exchange,
        place: &Place<'a>,
    ) -> Result<Running<'a>> {
        let address = free_address()?;
        let component = case.component(place.guests);
        let log = place.dir.join(format!("{}.log", self.name));
        let spawn = |command| Running::spawn(address, command, &place.cores.server, &log);
        let mut running = match &self.kind {
            Kind::Container(contestant) => {
                let (variables, annotations) = if contestant.name == "runwasi" {
                    let listen = format!("WASMTIME_HTTP_PROXY_SOCKET_ADDR={address}");
                    (vec![listen], Vec::new())
                } else {
                    let listen = format!("WISP_HTTP_LISTEN={address}");
                    (vec![listen], annotations(case, place))
                };
                let guest = case.guest;
                let container =
                    place
                        .containers
                        .run(contestant, guest, &variables, &annotations)?;
                Running::container(address, container)
            }
            Kind::WispRun(program) => spawn(wisp_run(program, case, address, place)?)?,
            Kind::Wasmtime(wasmtime) => {
                let compiled = wasmtime.compile(&component, place.dir)?;
                spawn(wasmtime.serve(case, address, &compiled))?
            }
            Kind::Native(program) => {
                let mut command = Command::new(program);
                command.arg(address.to_string());
                spawn(command)?
            }
        };
        if let Err(error) = running.wait(exchange) {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(error.context(format!("{} said:\n{said}", self.name)));
        }
        cores::check(running.pid(), &place.cores.server)?;
        Ok(running)
    }
}

/// How many requests an instance is to answer.
pub fn reuse(case: &Case) -> u32 {
    match case.instances {
        Instances::Fresh => 1,
        Instances::Reused | Instances::Shared => REUSE,
    }
}

/// What wisp is asked for.
fn annotations(case: &Case, place: &Place<'_>) -> Vec<String> {
    let mut annotations = vec![
        format!("io.wisp.http.reuse={}", reuse(case)),
        format!("io.wisp.net.outbound=http://{}", place.upstream),
    ];
    if case.instances == Instances::Shared {
        annotations.push(format!("io.wisp.http.concurrency={AT_ONCE}"));
    }
    annotations
}

fn wisp_run(
    program: &Path,
    case: &Case,
    address: SocketAddr,
    place: &Place<'_>,
) -> Result<Command> {
    let config = place.dir.join("wisp.toml");
    let cache = place.dir.join("aot");
    fs::write(&config, format!("[cache]\ndir = {cache:?}\n"))?;
    let mut command = Command::new(program);
    command
        .env("WISP_CONFIG", config)
        .args(["run", "--listen", &address.to_string()]);
    for annotation in annotations(case, place) {
        command.args(["--annotation", &annotation]);
    }
    command.arg(case.component(place.guests));
    Ok(command)
}
