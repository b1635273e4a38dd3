//! From compiled code to a program that is ready to be instantiated.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use wasmtime::component::{self, Component};
use wasmtime::{Config, Engine, ExternType, InstancePre, Linker, Module, Precompiled};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::p2::bindings as http2;
use wasmtime_wasi_http::p3::bindings as http3;
use wisp_aot::Kind;
use wisp_capability::{Grant, Interfaces};

use crate::command;
use crate::error::EngineError;
use crate::gate;
use crate::guest::{Guest, ModuleGuest};
use crate::http;
use crate::http::pool;
use crate::interfaces;
use crate::page_map::PageMap;
use crate::setup::Setup;
use crate::world::{Imports, Wasi, World, of_component, of_module};

/// Where a module's imports come from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// A program, mapped and linked. Nothing of it has run.
pub struct Prepared {
    engine: Engine,
    program: Program,
    page_map: Option<PageMap>,
}

/// What is to be instantiated.
pub(crate) enum Program {
    Module(InstancePre<ModuleGuest>),
    Command2(p2::bindings::CommandPre<Guest>),
    Command3(p3::bindings::CommandPre<Guest>),
    Http(http::Handler),
}

/// Maps the code in `artifact` and links it. Starts no thread.
///
/// Only code that this node's own compiler wrote may be given: it runs as it
/// is. [`wisp_aot::Cache`] sees to that.
///
/// # Errors
/// Code of another version, a world that is not supported, or an import that
/// nobody provides or `grant` denies.
pub fn prepare(artifact: File, grant: &Grant) -> Result<Prepared, EngineError> {
    let path = path(&artifact);
    let precompiled = Engine::detect_precompiled_file(&path)
        .map_err(|error| EngineError::Artifact(text(&error)))?;
    match precompiled {
        Some(Precompiled::Module) => {
            let engine = engine(Kind::MODULE, |_| {})?;
            Ok(Prepared {
                program: module(&engine, &path, &grant.interfaces)?,
                engine,
                page_map: None,
            })
        }
        Some(Precompiled::Component) => {
            let (kind, component) = map(&path)?;
            let engine = component.engine().clone();
            let prepared = Prepared {
                program: link(&engine, kind, &component, grant)?,
                engine,
                page_map: None,
            };
            match prepared.program {
                Program::Http(_) => prepared.with_pool(&path, kind, &component, grant),
                _ => Ok(prepared),
            }
        }
        None => Err(EngineError::Artifact("not made by our compiler".into())),
    }
}

fn engine(kind: Kind, adjust: impl FnOnce(&mut Config)) -> Result<Engine, EngineError> {
    let failed = |error: wasmtime::Error| EngineError::Engine(text(&error));
    let mut config = wisp_aot::settings(kind).map_err(failed)?;
    adjust(&mut config);
    Engine::new(&config).map_err(failed)
}

/// Maps a component for the engine that it was compiled for: the code says which
/// it is by fitting.
fn map(path: &Path) -> Result<(Kind, Component), EngineError> {
    let mut problem = None;
    for kind in Kind::ALL {
        let engine = engine(kind, |_| {})?;
        // SAFETY: the promise of `prepare`'s caller: our own compiler wrote it.
        match unsafe { Component::deserialize_file(&engine, path) } {
            Ok(component) => return Ok((kind, component)),
            Err(error) => problem = Some(text(&error)),
        }
    }
    Err(EngineError::Artifact(problem.unwrap_or_default()))
}

/// Wasmtime maps components by path only. This path leads to the open file
/// even where it has no name, or another one by now.
fn path(artifact: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", artifact.as_raw_fd()))
}

impl Prepared {
    /// The same with what makes instances cheap to come by: memory for as many
    /// as there may be at once is reserved, and used again. What is reserved
    /// depends on the program, so it is only known now.
    fn with_pool(
        self,
        path: &Path,
        kind: Kind,
        component: &Component,
        grant: &Grant,
    ) -> Result<Self, EngineError> {
        // What is not known before it runs cannot be reserved.
        let Some(needs) = component.resources_required() else {
            return Ok(self);
        };
        let world = self.world();
        let engine = engine(kind, |config| {
            pool::reserve(config, &needs, &grant.http, world);
        })?;
        // SAFETY: as for `map`, which has had the same file.
        let component = unsafe { Component::deserialize_file(&engine, path) }
            .map_err(|error| EngineError::Artifact(text(&error)))?;
        Ok(Self {
            page_map: PageMap::find(),
            program: link(&engine, kind, &component, grant)?,
            engine,
        })
    }

    /// What a fork of the process that prepared calls before it runs the
    /// program. `proc` is `/proc`, which a jail need not have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn forked(&self, proc: BorrowedFd<'_>) -> io::Result<()> {
        self.page_map.as_ref().map_or(Ok(()), |map| map.renew(proc))
    }

    /// What the program is made for.
    pub fn world(&self) -> World {
        match &self.program {
            Program::Module(_) => World::Command(Wasi::P1),
            Program::Command2(_) => World::Command(Wasi::P2),
            Program::Command3(_) => World::Command(Wasi::P3),
            Program::Http(http::Handler::P2(_)) => World::Http(Wasi::P2),
            Program::Http(http::Handler::P3(_)) => World::Http(Wasi::P3),
        }
    }

    /// Runs the guest to its end and gives the exit code. Standard streams are
    /// the process's own. Installs signal handlers and, for an HTTP server,
    /// starts a thread: the process is the guest's from here on.
    pub fn run(self, setup: Setup) -> i32 {
        match self.program {
            Program::Http(handler) => http::run(self.engine, handler, setup),
            command => command::run(&self.engine, command, setup),
        }
    }
}

/// The whole chain of causes in one line.
fn text(error: &wasmtime::Error) -> String {
    format!("{error:#}")
}

fn module(engine: &Engine, path: &Path, interfaces: &Interfaces) -> Result<Program, EngineError> {
    // SAFETY: the promise of `prepare`'s caller: our own compiler wrote the code.
    let module = unsafe { Module::deserialize_file(engine, path) }
        .map_err(|error| EngineError::Artifact(text(&error)))?;
    of_module(module.exports().map(|export| {
        let is_entry = match export.ty() {
            ExternType::Func(ty) => ty.params().len() == 0 && ty.results().len() == 0,
            _ => false,
        };
        (export.name(), is_entry)
    }))?;
    interfaces::check(interfaces, module.imports().map(|import| import.module()))?;
    let linker = module_linker(engine, &module, interfaces)
        .map_err(|error| EngineError::Engine(text(&error)))?;
    linker
        .instantiate_pre(&module)
        .map(Program::Module)
        .map_err(|error| EngineError::Import(text(&error)))
}

fn module_linker(
    engine: &Engine,
    module: &Module,
    interfaces: &Interfaces,
) -> wasmtime::Result<Linker<ModuleGuest>> {
    let mut linker = Linker::new(engine);
    if interfaces.traps() && interfaces.refusal(PREVIEW_1).is_some() {
        linker.define_unknown_imports_as_traps(module)?;
        return Ok(linker);
    }
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |guest: &mut ModuleGuest| &mut guest.wasi)?;
    // Wasmtime's own traps on codes from 126 up, but a process may exit so.
    linker.allow_shadowing(true);
    linker.func_wrap(
        PREVIEW_1,
        "proc_exit",
        |code: i32| -> wasmtime::Result<()> { Err(I32Exit(code).into()) },
    )?;
    Ok(linker)
}

fn link(
    engine: &Engine,
    kind: Kind,
    component: &Component,
    grant: &Grant,
) -> Result<Program, EngineError> {
    let ty = component.component_type();
    let world = of_component(ty.exports(engine).map(|(name, _)| name))?;
    // Nobody could take the thread back from a server whose code does not look at the
    // time, and nobody sets one for a command.
    if kind.interruptible != matches!(world, World::Http(_)) {
        return Err(EngineError::Artifact(format!(
            "it is no code for this kind of program, {world}"
        )));
    }
    let imports = Imports::of(ty.imports(engine).map(|(name, _)| name));
    interfaces::check(&grant.interfaces, ty.imports(engine).map(|(name, _)| name))?;
    let mut linker =
        component_linker(engine, &imports).map_err(|error| EngineError::Engine(text(&error)))?;
    gate::put(grant, engine, &ty, &mut linker)
        .and_then(|()| interfaces::trap(&grant.interfaces, engine, &ty, &mut linker))
        .map_err(|error| EngineError::Engine(text(&error)))?;
    let pre = linker
        .instantiate_pre(component)
        .map_err(|error| EngineError::Import(text(&error)))?;
    let program = match world {
        World::Command(Wasi::P3) => p3::bindings::CommandPre::new(pre).map(Program::Command3),
        World::Command(_) => p2::bindings::CommandPre::new(pre).map(Program::Command2),
        World::Http(Wasi::P3) => {
            http3::ServicePre::new(pre).map(|pre| Program::Http(http::Handler::P3(pre)))
        }
        World::Http(_) => {
            http2::ProxyPre::new(pre).map(|pre| Program::Http(http::Handler::P2(pre)))
        }
    };
    program.map_err(|error| EngineError::World {
        kind: "component",
        found: vec![text(&error)],
        wants: "the function must have the type that its WASI version gives it",
    })
}

/// The interfaces that a component imports, of 0.2 and 0.3: a component may mix
/// them. What it does not import is not even linked: that would take time and
/// memory at each start.
fn component_linker(
    engine: &Engine,
    imports: &Imports,
) -> wasmtime::Result<component::Linker<Guest>> {
    let mut linker = component::Linker::new(engine);
    if imports.wasi2 {
        p2::add_to_linker_async(&mut linker)?;
    }
    if imports.wasi3 {
        p3::add_to_linker(&mut linker)?;
    }
    if imports.http2 {
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    }
    if imports.config {
        wasmtime_wasi_config::add_to_linker(&mut linker, Guest::config)?;
    }
    if imports.http3 {
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use wisp_aot::Calls;
    use wisp_capability::{Policy, Request};

    use super::*;

    #[test]
    fn code_of_another_sort_than_its_program_is_refused() {
        let grant = wisp_capability::grant(&Request {
            args: &["program".to_owned()],
            env: &[],
            cwd: "/",
            annotations: &Default::default(),
            mounts: &[],
            root_readonly: false,
            host_network: true,
            memory_limit: None,
            namespace: "",
            policy: &Policy::default(),
        });
        let grant = grant.expect("granted");
        for (export, interruptible) in [
            ("wasi:cli/run@0.2.0", true),
            ("wasi:http/incoming-handler@0.2.0", false),
        ] {
            let engine = engine(Kind::new(Calls::Synchronous, interruptible), |_| {});
            let text = format!("(component (instance $i) (export \"{export}\" (instance $i)))");
            let code = engine
                .expect("engine")
                .precompile_component(&wat::parse_str(text).expect("text"));
            let mut file = tempfile::tempfile().expect("file");
            file.write_all(&code.expect("valid")).expect("written");
            match prepare(file, &grant) {
                Err(EngineError::Artifact(reason)) => {
                    assert!(
                        reason.contains("no code for this kind of program"),
                        "{reason}"
                    );
                }
                Err(error) => panic!("{export}: {error}"),
                Ok(_) => panic!("{export}: it was taken"),
            }
        }
    }
}
