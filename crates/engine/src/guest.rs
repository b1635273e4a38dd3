//! What an instance has on the host's side.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::gate;
use crate::http::{Calls, Outbound};
use crate::memory::Limiter;
use crate::network::Network;
use crate::setup::Surroundings;

/// The data of a component's store.
pub struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    table: ResourceTable,
    limiter: Limiter,
    config: Arc<WasiConfigVariables>,
    network: Arc<Network>,
}

impl Guest {
    /// A store for one instance, with fresh data.
    pub fn store(engine: &Engine, surroundings: &Surroundings) -> Store<Self> {
        let mut wasi = surroundings.wasi().build();
        wasi.filesystem().clone_from(&surroundings.files);
        let mut table = ResourceTable::new();
        table.set_max_capacity(surroundings.resources());
        let guest = Self {
            wasi,
            http: WasiHttpCtx::new(),
            outbound: Outbound::new(surroundings.client.clone()),
            table,
            limiter: surroundings.budget.limiter(),
            config: surroundings.config.clone(),
            network: surroundings.network.clone(),
        };
        let mut store = Store::new(engine, guest);
        Limiter::bind(&mut store, |guest| &mut guest.limiter);
        // Handles, and what calls of 0.3 under way take, are in tables of Wasmtime's
        // own, which are far larger unless somebody says otherwise.
        let (resources, calls) = (surroundings.resources(), surroundings.calls());
        store.set_max_component_handles(resources.saturating_add(calls));
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(calls);
        }
        store
    }

    /// Takes room for the stack that its instance computes on; says whether it may.
    pub fn take_stack(&mut self) -> bool {
        self.limiter.take_stack()
    }

    /// What its network is checked against.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What stands before its sockets.
    pub fn gate(&mut self) -> gate::View<'_> {
        gate::View {
            sockets: WasiSocketsCtxView {
                ctx: self.wasi.sockets(),
                table: &mut self.table,
            },
            network: &self.network,
        }
    }

    /// What it makes requests for.
    pub fn calls(&mut self) -> &mut Calls {
        &mut self.outbound.calls
    }

    /// What `wasi:config` answers from.
    pub fn config(&mut self) -> WasiConfig<'_> {
        WasiConfig::from(&*self.config)
    }
}

/// The data of a module's store.
pub struct ModuleGuest {
    pub wasi: WasiP1Ctx,
    limiter: Limiter,
}

impl ModuleGuest {
    /// A store for one instance, with fresh data.
    pub fn store(engine: &Engine, surroundings: &Surroundings) -> Store<Self> {
        let mut wasi = surroundings.wasi().build_p1();
        (wasi.ctx().ctx.filesystem()).clone_from(&surroundings.files);
        let guest = Self {
            wasi,
            limiter: surroundings.budget.limiter(),
        };
        let mut store = Store::new(engine, guest);
        Limiter::bind(&mut store, |guest| &mut guest.limiter);
        store
    }
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
            hooks: &mut self.outbound,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
