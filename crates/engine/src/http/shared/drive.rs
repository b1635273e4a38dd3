//! The task that an instance lives in.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::sleep_until;
use wasmtime::component::Accessor;
use wasmtime::{AsContextMut, Store};
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView, p3};

use super::load::{Load, Next};
use super::{Job, Over, Shared};
use crate::exit::complain;
use crate::guest::Guest;
use crate::http::early::Begun;
use crate::http::instance::{Exports, Instance, refuse};
use crate::http::request::Held;
use crate::http::trace::{Scope, Step};

/// Makes an instance and has it do what it is given, to its end.
pub async fn run(shared: Arc<Shared>, load: Arc<Load>) {
    let leaving = Leaving(&shared, &load);
    let ended = match shared.maker.make().await {
        Ok(Instance {
            store,
            exports: Exports::P3(service),
        }) => {
            let work = drive(shared.clone(), load.clone(), store, service);
            load.course.run(Box::pin(work)).await
        }
        Ok(Instance {
            exports: Exports::P2(_),
            ..
        }) => Err(wasmtime::Error::msg(
            "an instance of WASI 0.2 handles one request after the other",
        )),
        Err(error) => Err(error),
    };
    shared.leave(&load);
    if ended.is_err() || load.has_failed() {
        shared.maker.metrics.instances_failed.add(1);
    }
    let (mut waiting, mut open) = load.close();
    drop(leaving);
    if let Err(error) = ended {
        tell(error, &mut waiting, &mut open);
    }
    shared.give_again(waiting);
}

/// Tells those whose requests the instance worked on, or the one that it was made
/// for, how it ended.
fn tell(error: wasmtime::Error, waiting: &mut VecDeque<Box<Job>>, open: &mut Vec<Over>) {
    if open.is_empty() {
        open.extend(waiting.pop_front().map(|job| job.over));
    }
    let others = open.split_off(open.len().min(1));
    match open.pop() {
        // Nobody may want to know any more.
        Some(first) => drop(first.send(Err(error))),
        None => complain(&format!("guest failed after its responses: {error:?}")),
    }
    for over in others {
        let failed = "the instance failed that it shared with the request before";
        let _ = over.send(Err(wasmtime::Error::msg(failed)));
    }
}

/// Lets nobody wait for an instance that panicked.
struct Leaving<'a>(&'a Shared, &'a Arc<Load>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave(self.1);
        self.1.close();
    }
}

async fn drive(
    shared: Arc<Shared>,
    load: Arc<Load>,
    mut store: Store<Guest>,
    service: Service,
) -> wasmtime::Result<()> {
    let limit = shared.bounds.work;
    let came_back = AtomicBool::new(false);
    let begun = Begun::default();
    let mut guest = pin!(store.run_concurrent(async |store| {
        work(&shared, &load, &service, store, &begun, &came_back).await
    }));
    let mut alarm = pin!(sleep_until((load.begun() + limit).into()));
    poll_fn(|context| {
        came_back.store(false, Relaxed);
        let poll = begun.poll(context, guest.as_mut());
        if poll.is_ready() {
            return poll;
        }
        // While the guest computes, or the host does something for it that
        // nothing else of the instance can go on beside, what is inside is not
        // asked.
        if !came_back.load(Relaxed) {
            let (waiting, wanted) = load.computes();
            shared.give_again(waiting);
            if !wanted {
                return Poll::Ready(Ok(()));
            }
        }
        while alarm.as_mut().poll(context).is_ready() {
            if load.lingers().is_some_and(|lingers| lingers >= limit) {
                let error = format!("it was still at work {limit:?} after its last request");
                return Poll::Ready(Err(wasmtime::Error::msg(error)));
            }
            alarm.as_mut().reset(load.look_again(limit).into());
        }
        Poll::Pending
    })
    .await
}

/// What happens inside of the store.
async fn work(
    shared: &Shared,
    load: &Load,
    service: &Service,
    store: &Accessor<Guest>,
    begun: &Begun,
    came_back: &AtomicBool,
) -> wasmtime::Result<()> {
    let mut running = FuturesUnordered::new();
    // Of the request that ended last, for as long as the guest has more to do.
    let mut held = None;
    poll_fn(|context| {
        came_back.store(true, Relaxed);
        loop {
            while let Poll::Ready(Some(ended)) = running.poll_next_unpin(context) {
                held = Some(ended?);
            }
            match load.next(context) {
                Next::Request(job, number) => {
                    if number > 1 {
                        shared.maker.metrics.instances_reused.add(1);
                    }
                    running.push(serve(load, service, store, begun, *job, number));
                    continue;
                }
                Next::End => return Poll::Ready(Ok(())),
                Next::Wait => {}
            }
            if !running.is_empty() {
                return Poll::Pending;
            }
            ready!(store.poll_no_interesting_tasks(context));
            held = None;
            return match load.rest(|| shared.spare.take()) {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            };
        }
    })
    .await
}

/// Handles one request until its response is complete or nobody waits for it any
/// more. Gives what is to be held for as long as the guest goes on.
async fn serve(
    load: &Load,
    service: &Service,
    store: &Accessor<Guest>,
    begun: &Begun,
    job: Job,
    number: u32,
) -> wasmtime::Result<Held> {
    let Job {
        mut request,
        answer,
        held,
        over,
    } = job;
    load.begin(number, over);
    let scope: Option<Arc<Scope>> = request.extensions_mut().remove();
    let step = Step::begin(scope.as_ref(), "handle");
    if let Some(scope) = &scope {
        store.with(|mut store| store.get().calls().enter_among(scope.clone()));
    }
    let handled = pin!(async {
        let (request, received) = store.with(|mut store| {
            store.as_context_mut().set_epoch_deadline(1);
            let (request, received) = p3::Request::from_http(store.get().http().hooks, request);
            (request, Box::pin(received) as Received)
        });
        match service.handle(store, request).await? {
            Ok(response) => {
                let response = store.with(|store| response.into_http(store, received))?;
                let (sending, sent) = oneshot::channel();
                let response = response.map(|body| {
                    let sending = Sending {
                        body,
                        _sending: sending,
                    };
                    sending.boxed_unsync()
                });
                begun.add(answer.clone(), response);
                // Nothing is ever said: it ends with the body.
                let _ = sent.await;
            }
            Err(code) => refuse(&answer, &code),
        }
        wasmtime::error::Ok(())
    });
    let abandoned = pin!(poll_fn(|context| load.abandoned(number, context)));
    let ended = select(handled, abandoned).await;
    if let Some(scope) = &scope {
        store.with(|mut store| store.get().calls().leave(scope));
    }
    if let Either::Left((ended, _)) = ended {
        step.end(&ended);
        ended?;
        load.end(number);
    }
    Ok(held)
}

/// How the host took the request's body.
type Received = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A response's body that tells when it has been sent or given up.
struct Sending {
    body: WasiBody,
    _sending: oneshot::Sender<Infallible>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
