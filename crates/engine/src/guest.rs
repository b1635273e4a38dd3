//! What a component's instance has on the host's side.

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::http::Outbound;
use crate::setup::Surroundings;

/// The data of a component's store.
pub struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    table: ResourceTable,
}

impl Guest {
    /// Fresh data for one instance.
    ///
    /// # Errors
    /// See [`Surroundings::wasi`].
    pub fn new(surroundings: &Surroundings) -> Result<Self, String> {
        Ok(Self {
            wasi: surroundings.wasi()?.build(),
            http: WasiHttpCtx::new(),
            outbound: Outbound::new(surroundings.network.clone()),
            table: ResourceTable::new(),
        })
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
