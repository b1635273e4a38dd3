//! HTTP servers, as the Wasmtime shim of that crate's own project has them: a
//! pool of instances of the default size, a fresh one for each request, HTTP/1.1.

use crate::Guest;
use containerd_shim_wasm::sandbox::context::RuntimeContext;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, bail};
use wasmtime_wasi::{WasiCtxBuilder, p2};
use wasmtime_wasi_http::WasiHttpCtx;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// The variable that says where to listen.
const LISTEN: &str = "WASMTIME_HTTP_PROXY_SOCKET_ADDR";
const DEFAULT_LISTEN: &str = "0.0.0.0:8080";

/// Whether the component is a server.
pub fn is_server(component: &Component) -> bool {
    component
        .component_type()
        .exports(component.engine())
        .any(|(name, _)| name.starts_with("wasi:http/incoming-handler"))
}

/// The component, for an engine with a pool: only servers pay for that.
fn with_pool(bytes: &[u8], precompiled: bool) -> wasmtime::Result<Component> {
    let pool = PoolingAllocationConfig::default();
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config)?;
    if precompiled {
        // SAFETY: containerd's store has what this shim's compiler made.
        unsafe { Component::deserialize(&engine, bytes) }
    } else {
        Component::new(&engine, bytes)
    }
}

/// Serves until the process is ended.
pub async fn serve(
    context: &impl RuntimeContext,
    bytes: &[u8],
    precompiled: bool,
) -> wasmtime::Result<()> {
    let component = with_pool(bytes, precompiled)?;
    let mut linker = Linker::<Guest>::new(component.engine());
    p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    let mut listen = DEFAULT_LISTEN;
    let mut variables = Vec::new();
    for variable in context.envs() {
        match variable.split_once('=').unwrap_or((variable, "")) {
            (LISTEN, address) => listen = address,
            (name, value) => variables.push((name.to_owned(), value.to_owned())),
        }
    }
    let server = Arc::new(Server {
        program: ProxyPre::new(linker.instantiate_pre(&component)?)?,
        variables,
    });
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let server = server.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| server.clone().answer(request));
            // Clients that leave are none of its business.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

struct Server {
    program: ProxyPre<Guest>,
    variables: Vec<(String, String)>,
}

impl Server {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> wasmtime::Result<Response<HyperOutgoingBody>> {
        let guest = Guest {
            wasi: WasiCtxBuilder::new().envs(&self.variables).build(),
            table: ResourceTable::new(),
            http: WasiHttpCtx::new(),
        };
        let mut store = Store::new(self.program.engine(), guest);
        let (give, given) = oneshot::channel();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let response = http.new_response_outparam(give)?;
        let proxy = self.program.instantiate_async(&mut store).await?;
        let handled = tokio::spawn(async move {
            proxy
                .wasi_http_incoming_handler()
                .call_handle(store, request, response)
                .await
        });
        match given.await {
            Ok(response) => Ok(response?),
            Err(_) => bail!("no response: {:?}", handled.await?),
        }
    }
}
