//! Traces: what the server and its guests did for a request, as spans that are
//! sent to a collector by OTLP (<https://opentelemetry.io/docs/specs/otlp/>), where
//! the container's environment names one.
//!
//! Requests are answered on many threads, so nothing here makes them wait for each
//! other: each thread has numbers and a queue of its own, and spans keep what they
//! are about as it was. What OpenTelemetry calls it, and how it is written, is
//! decided by the one task that exports them, in batches, with the guest's own
//! client of HTTP: its connections, its TLS, its proxies, and its grant.
//!
//! The messages are few, so they stand in `message`. The crate that has all of
//! OTLP's needs OpenTelemetry's SDK to be compiled, and the SDK's own exporter
//! brings a second client of HTTP, which knows nothing of grants, and a thread.

mod call;
mod context;
mod encode;
mod export;
mod ids;
mod message;
mod post;
mod queue;
mod sampler;
mod scope;
mod served;
mod settings;
mod span;
mod step;
mod variables;

use std::sync::Arc;

use context::{SpanContext, TraceId};
use queue::{Counts, Place, Queue};
use sampler::Sampler;
use settings::Settings;
use span::Span;

use crate::exit::complain;
use crate::setup::Surroundings;

pub use call::Calls;
pub use export::Exporter;
pub use scope::Scope;
pub use served::Request;
pub use step::Step;

/// Starts to export spans, where the guest's environment says where to and its
/// grant lets it. Everything else is told.
pub fn start(surroundings: &Surroundings) -> Option<(Arc<Traces>, Exporter)> {
    let program = surroundings.program();
    let name = program.rsplit('/').next().unwrap_or(program);
    let settings = Settings::read(surroundings.env(), name, &complain)?;
    let traces = Traces::new(&settings);
    match Exporter::start(settings, &traces, surroundings.client.clone()) {
        Ok(exporter) => Some((traces, exporter)),
        Err(problem) => {
            complain(&problem);
            None
        }
    }
}

/// Makes spans, on one thread.
pub struct Traces {
    sampler: Sampler,
    queue: Arc<Queue>,
    place: Arc<Place>,
}

impl Traces {
    /// Of what is to be exported as `settings` say.
    fn new(settings: &Settings) -> Arc<Self> {
        let queue = Arc::new(Queue::new(settings.queue, settings.batch));
        Arc::new(Self {
            sampler: settings.sampler,
            place: queue.place(),
            queue,
        })
    }

    /// The same for another thread.
    pub fn beside(&self) -> Arc<Self> {
        Arc::new(Self {
            sampler: self.sampler,
            queue: self.queue.clone(),
            place: self.queue.place(),
        })
    }

    /// What became of spans so far.
    pub fn counts(&self) -> &Counts {
        &self.queue.counts
    }

    /// A new span: of its parent's trace, or of one that begins with it.
    fn context(&self, parent: Option<&SpanContext>) -> Option<SpanContext> {
        let trace: TraceId = match parent {
            Some(parent) => parent.trace,
            None => ids::trace()?,
        };
        Some(SpanContext {
            trace,
            span: ids::span()?,
            sampled: self.sampler.takes(trace, parent),
        })
    }

    fn export(&self, span: Span) {
        self.queue.push(&self.place, span);
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
