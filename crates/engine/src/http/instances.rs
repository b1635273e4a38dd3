//! Instances of the component: made, used, and where asked for used again.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::Request;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings as http2;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings as http3;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use super::answer::Answer;
use super::metrics::Metrics;
use crate::exit::complain;
use crate::guest::Guest;
use crate::setup::Surroundings;

/// A component that answers requests.
pub enum Handler {
    P2(http2::ProxyPre<Guest>),
    P3(http3::ServicePre<Guest>),
}

/// Makes instances and keeps those that may be used again.
pub struct Instances {
    engine: Engine,
    handler: Arc<Handler>,
    pub surroundings: Arc<Surroundings>,
    /// How many requests one instance answers.
    reuse: u32,
    metrics: Arc<Metrics>,
    /// The one used last is used first: its memory is warm, and those beyond
    /// what is needed grow old.
    idle: Mutex<Vec<Instance>>,
}

struct Instance {
    store: Store<Guest>,
    exports: Exports,
    /// How many requests it has been given.
    served: u32,
    since: Instant,
}

enum Exports {
    P2(http2::Proxy),
    P3(http3::Service),
}

impl Instances {
    pub fn new(
        engine: Engine,
        handler: Handler,
        surroundings: Surroundings,
        reuse: u32,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            engine,
            handler: Arc::new(handler),
            surroundings: Arc::new(surroundings),
            reuse,
            metrics,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// The same for another thread, with instances of its own to use again.
    pub fn beside(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            handler: self.handler.clone(),
            surroundings: self.surroundings.clone(),
            reuse: self.reuse,
            metrics: self.metrics.clone(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Has an instance handle `request` to its end: until the guest has nothing
    /// more to do for it. The instance is used again only after that: dropping
    /// what this returns ends it wherever it is.
    ///
    /// # Errors
    /// Whatever ends the guest.
    pub async fn serve(
        &self,
        request: Request<WasiBody>,
        answer: &Arc<Answer>,
    ) -> wasmtime::Result<()> {
        let known = self.idle().pop();
        let mut instance = match known {
            Some(instance) => {
                self.metrics.instances_reused.add(1);
                instance
            }
            None => self.make().await?,
        };
        instance.served += 1;
        instance.store.set_epoch_deadline(1);
        instance.handle(request, answer).await?;
        if instance.served < self.reuse {
            instance.since = Instant::now();
            self.idle().push(instance);
        }
        Ok(())
    }

    /// Ends what has not been used since `since`.
    pub fn forget(&self, since: Instant) {
        let mut idle = self.idle();
        let kept = idle.partition_point(|instance| instance.since < since);
        // Those used last are at the end.
        let old: Vec<_> = idle.drain(..kept).collect();
        drop(idle);
        drop(old);
    }

    /// Whether any instance is ever kept.
    pub fn keeps(&self) -> bool {
        self.reuse > 1
    }

    async fn make(&self) -> wasmtime::Result<Instance> {
        let begun = Instant::now();
        let mut store =
            Guest::store(&self.engine, &self.surroundings).map_err(wasmtime::Error::msg)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let exports = match &*self.handler {
            Handler::P2(pre) => Exports::P2(pre.instantiate_async(&mut store).await?),
            Handler::P3(pre) => Exports::P3(pre.instantiate_async(&mut store).await?),
        };
        self.metrics.instantiated(begun.elapsed());
        Ok(Instance {
            store,
            exports,
            served: 0,
            since: begun,
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Instance>> {
        // Whole instances come and go, whoever panicked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    async fn handle(
        &mut self,
        request: Request<WasiBody>,
        answer: &Arc<Answer>,
    ) -> wasmtime::Result<()> {
        match &self.exports {
            Exports::P2(proxy) => handle2(proxy, &mut self.store, request, answer).await,
            Exports::P3(service) => handle3(service, &mut self.store, request, answer).await,
        }
    }
}

async fn handle2(
    proxy: &http2::Proxy,
    store: &mut Store<Guest>,
    request: Request<WasiBody>,
    answer: &Arc<Answer>,
) -> wasmtime::Result<()> {
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(Scheme::Http, request)?;
    let given = answer.clone();
    let response = store
        .data_mut()
        .http()
        .new_response_outparam_from_callback(move |response| match response {
            Ok(response) => given.give(response),
            Err(code) => {
                complain(&format!("guest answers with an error: {code:?}"));
                given.give_up();
            }
        })?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut *store, request, response)
        .await?;
    if !answer.is_given() {
        wasmtime::bail!("it ended without setting a response");
    }
    Ok(())
}

async fn handle3(
    service: &http3::Service,
    store: &mut Store<Guest>,
    request: Request<WasiBody>,
    answer: &Arc<Answer>,
) -> wasmtime::Result<()> {
    let (request, received) = p3::Request::from_http(store.data_mut().http().hooks, request);
    store
        .run_concurrent(async |store| {
            match service.handle(store, request).await? {
                Ok(response) => {
                    let response = store.with(|store| response.into_http(store, received))?;
                    answer.give(response);
                }
                Err(code) => {
                    complain(&format!("guest answers with an error: {code:?}"));
                    answer.give_up();
                }
            }
            // The body is still being made, and the guest may have more to do.
            poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
            Ok(())
        })
        .await?
}
