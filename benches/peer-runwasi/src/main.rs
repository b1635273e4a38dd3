//! The peer: the shim that `containerd-shim-wasm` makes of the least code around
//! Wasmtime. Programs from Wasm layers are compiled once, by that crate's own
//! means, and kept in containerd's content store; files in the root file system
//! are compiled at each start, because the crate offers nothing else for them.

mod http;

use anyhow::{Result, anyhow};
use containerd_shim_wasm::sandbox::Sandbox;
use containerd_shim_wasm::sandbox::context::{RuntimeContext, WasmLayer};
use containerd_shim_wasm::shim::{Cli, Compiler, Config, Shim, Version, version};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;
use wasmtime::component::{Component, ResourceTable};
use wasmtime::{Engine, Module, Precompiled, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, p1, p2};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// What every one of these shims exits with when the guest traps.
const TRAPPED: i32 = 137;

static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);

struct PeerShim;

impl Shim for PeerShim {
    type Sandbox = Wasmtime;

    fn name() -> &'static str {
        "peerwasi"
    }

    fn version() -> Version {
        version!()
    }

    async fn compiler() -> Option<impl Compiler> {
        Some(Precompiler)
    }
}

struct Precompiler;

impl Compiler for Precompiler {
    fn cache_key(&self) -> impl Hash {
        let mut hasher = DefaultHasher::new();
        ENGINE.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    async fn compile(&self, layers: &[WasmLayer]) -> Result<Vec<Option<Vec<u8>>>> {
        layers
            .iter()
            .map(|layer| {
                if Engine::detect_precompiled(&layer.layer).is_some() {
                    return Ok(None);
                }
                let code = if is_component(&layer.layer) {
                    ENGINE.precompile_component(&layer.layer)
                } else {
                    ENGINE.precompile_module(&layer.layer)
                };
                Ok(Some(code.map_err(|error| anyhow!("compile: {error:?}"))?))
            })
            .collect()
    }
}

#[derive(Default)]
struct Wasmtime;

impl Sandbox for Wasmtime {
    async fn run_wasi(&self, context: &impl RuntimeContext) -> Result<i32> {
        let source = context.entrypoint().source;
        let precompiled = source.is_precompiled()?;
        let bytes = source.as_bytes()?;
        match run(context, &bytes, precompiled).await {
            Ok(()) => Ok(0),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(exit) => Ok(exit.0),
                None => {
                    eprintln!("{error:?}");
                    Ok(TRAPPED)
                }
            },
        }
    }
}

async fn run(
    context: &impl RuntimeContext,
    bytes: &[u8],
    precompiled: bool,
) -> wasmtime::Result<()> {
    if !precompiled {
        return if is_component(bytes) {
            let program = Component::new(&ENGINE, bytes)?;
            if http::is_server(&program) {
                return http::serve(context, bytes, precompiled).await;
            }
            run_component(&program, wasi(context)?.build()).await
        } else {
            run_module(&Module::new(&ENGINE, bytes)?, wasi(context)?.build_p1()).await
        };
    }
    match Engine::detect_precompiled(bytes) {
        Some(Precompiled::Component) => {
            // SAFETY: containerd's store has what `Precompiler` made.
            let program = unsafe { Component::deserialize(&ENGINE, bytes) }?;
            if http::is_server(&program) {
                return http::serve(context, bytes, precompiled).await;
            }
            run_component(&program, wasi(context)?.build()).await
        }
        Some(Precompiled::Module) => {
            // SAFETY: as above.
            let program = unsafe { Module::deserialize(&ENGINE, bytes) }?;
            run_module(&program, wasi(context)?.build_p1()).await
        }
        None => wasmtime::bail!("precompiled code that is none"),
    }
}

fn wasi(context: &impl RuntimeContext) -> wasmtime::Result<WasiCtxBuilder> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.allow_blocking_current_thread(true)
        .inherit_stdio()
        .args(context.args());
    for variable in context.envs() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        wasi.env(name, value);
    }
    wasi.preopened_dir("/", "/", FsPerms::ReadWrite)?;
    Ok(wasi)
}

struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: wasmtime_wasi_http::default_hooks(),
        }
    }
}

async fn run_component(program: &Component, wasi: WasiCtx) -> wasmtime::Result<()> {
    let mut linker = wasmtime::component::Linker::<Guest>::new(&ENGINE);
    p2::add_to_linker_async(&mut linker)?;
    let guest = Guest {
        wasi,
        table: ResourceTable::new(),
        http: WasiHttpCtx::new(),
    };
    let mut store = Store::new(&ENGINE, guest);
    let command = p2::bindings::Command::instantiate_async(&mut store, program, &linker).await?;
    match command.wasi_cli_run().call_run(&mut store).await? {
        Ok(()) => Ok(()),
        Err(()) => Err(I32Exit(1).into()),
    }
}

async fn run_module(program: &Module, wasi: WasiP1Ctx) -> wasmtime::Result<()> {
    let mut linker = wasmtime::Linker::<WasiP1Ctx>::new(&ENGINE);
    p1::add_to_linker_async(&mut linker, |guest| guest)?;
    let mut store = Store::new(&ENGINE, wasi);
    let instance = linker.instantiate_async(&mut store, program).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    start.call_async(&mut store, ()).await
}

/// A component's header says layer 1 where a module's has layer 0.
fn is_component(bytes: &[u8]) -> bool {
    bytes.get(4..8) == Some(&[0x0d, 0, 1, 0])
}

fn main() {
    // Its log goes through a pipe into containerd's; `info` is three lines per start.
    PeerShim::run(Config {
        default_log_level: "warn".to_owned(),
        ..Config::default()
    });
}
