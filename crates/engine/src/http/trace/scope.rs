//! What all that is done for one request has in common.

use std::sync::Arc;
use std::time::Instant;

use super::context::SpanContext;
use super::span::{Begun, Parent, Span, What};
use super::{Traces, ids};

/// The longest `tracestate` that is exported, in bytes; longer ones are passed on
/// only.
const STATE: usize = 512;

/// A request that is being answered, to those who work for it.
pub struct Scope {
    pub(super) traces: Arc<Traces>,
    /// Of the span that is about the request as a whole.
    pub(super) context: SpanContext,
    /// The trace's `tracestate`.
    pub(super) state: Option<Arc<str>>,
    pub(super) begun: Begun,
}

impl Scope {
    /// A span below this one, if this one is recorded.
    pub(super) fn below(&self) -> Option<(SpanContext, Parent)> {
        if !self.context.sampled {
            return None;
        }
        let context = SpanContext {
            span: ids::span()?,
            ..self.context
        };
        Some((context, self.parent()))
    }

    pub(super) fn parent(&self) -> Parent {
        Parent {
            span: self.context.span,
            is_remote: false,
        }
    }

    /// Has a span exported that is over by now.
    pub(super) fn export(
        &self,
        context: SpanContext,
        parent: Option<Parent>,
        begun: Instant,
        what: What,
    ) {
        // A guest may speak of another trace than its request's.
        let is_same = context.trace == self.context.trace;
        let state = self
            .state
            .as_ref()
            .filter(|state| is_same && state.len() <= STATE);
        self.traces.export(Span {
            context,
            parent,
            state: state.cloned(),
            begun: self.begun.wall(begun),
            ended: self.begun.wall(Instant::now()),
            what,
        });
    }
}
