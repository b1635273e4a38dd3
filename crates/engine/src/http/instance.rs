//! One instance of the component, and how it answers.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use hyper::Request;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings as http2;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings as http3;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use super::answer::Answer;
use super::early::Begun;
use super::metrics::Metrics;
use crate::exit::complain;
use crate::guest::Guest;
use crate::setup::Surroundings;

/// A component that answers requests.
pub enum Handler {
    P2(http2::ProxyPre<Guest>),
    P3(http3::ServicePre<Guest>),
}

/// Makes instances; the same for all threads.
pub struct Maker {
    engine: Engine,
    handler: Handler,
    pub surroundings: Surroundings,
    pub metrics: Arc<Metrics>,
}

/// A store with an instance in it.
pub struct Instance {
    pub store: Store<Guest>,
    pub exports: Exports,
}

pub enum Exports {
    P2(http2::Proxy),
    P3(http3::Service),
}

impl Maker {
    pub fn new(
        engine: Engine,
        handler: Handler,
        surroundings: Surroundings,
        metrics: Arc<Metrics>,
    ) -> Self {
        surroundings.budget.count_stacks(&engine);
        Self {
            engine,
            handler,
            surroundings,
            metrics,
        }
    }

    /// Whether instances can work on several requests at once.
    pub fn is_concurrent(&self) -> bool {
        matches!(self.handler, Handler::P3(_))
    }

    /// # Errors
    /// No place in the pool, no memory, or what the guest does at its start.
    pub async fn make(&self) -> wasmtime::Result<Instance> {
        let begun = Instant::now();
        let mut store = Guest::store(&self.engine, &self.surroundings);
        if !store.data_mut().take_stack() {
            wasmtime::bail!("there is no memory for its stack");
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let exports = match &self.handler {
            Handler::P2(pre) => Exports::P2(pre.instantiate_async(&mut store).await?),
            Handler::P3(pre) => Exports::P3(pre.instantiate_async(&mut store).await?),
        };
        self.metrics.instantiated(begun.elapsed());
        Ok(Instance { store, exports })
    }
}

impl Instance {
    /// Handles one request to its end: until the guest has nothing more to do.
    ///
    /// # Errors
    /// Whatever ends the guest.
    pub async fn handle(
        &mut self,
        request: Request<WasiBody>,
        answer: &Arc<Answer>,
    ) -> wasmtime::Result<()> {
        self.store.set_epoch_deadline(1);
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
                refuse(&given, &code);
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
    let begun = Begun::default();
    let mut guest = pin!(store.run_concurrent(async |store| {
        match service.handle(store, request).await? {
            Ok(response) => {
                let response = store.with(|store| response.into_http(store, received))?;
                begun.add(answer.clone(), response);
            }
            Err(code) => refuse(answer, &code),
        }
        // The body is still being made, and the guest may have more to do.
        poll_fn(|context| store.poll_no_interesting_tasks(context)).await;
        wasmtime::error::Ok(())
    }));
    poll_fn(|context| begun.poll(context, guest.as_mut())).await
}

/// Tells that the guest answers with an error instead of a response.
pub fn refuse(answer: &Answer, code: &dyn std::fmt::Debug) {
    complain(&format!("guest answers with an error: {code:?}"));
    answer.give_up();
}
