//! The span of a request that is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{self, HeaderMap, HeaderValue};

use super::Traces;
use super::context::{self, SpanContext, TRACEPARENT, TRACESTATE};
use super::scope::Scope;
use super::span::{Begun, Head, Parent, Served, What, cut};

/// A request whose answer is recorded.
pub struct Request {
    scope: Arc<Scope>,
    parent: Option<Parent>,
    begun: Instant,
    head: Head,
    client: SocketAddr,
    agent: Option<Box<str>>,
}

impl Traces {
    /// Begins the span of `request`, of which the guest is then told in place of
    /// the client's, with the trace's state; without a valid `traceparent` a trace
    /// begins, and a `tracestate` means nothing (W3C Trace Context, section 4.3).
    ///
    /// Gives what is to end with the request, if it is recorded. Whoever works for
    /// it finds its [`Scope`] among its extensions.
    pub fn receive<B>(
        self: &Arc<Self>,
        request: &mut http::Request<B>,
        client: SocketAddr,
        begun: Instant,
    ) -> Option<Box<Request>> {
        if self.queue.is_closed() {
            return None;
        }
        let before = SpanContext::of(request.headers());
        let context = self.context(before.as_ref())?;
        let state = match before {
            Some(_) => context::state(request.headers()),
            None => None,
        };
        let scope = Arc::new(Scope {
            traces: self.clone(),
            context,
            state,
            begun: Begun::new(begun),
        });
        let served = context.sampled.then(|| {
            let text = |name| text(request.headers(), name);
            let host = text(header::HOST).map(str::as_bytes);
            Box::new(Request {
                head: Head {
                    // Whatever the client says: nothing else is spoken.
                    is_tls: false,
                    ..Head::new(request.method(), request.uri(), host, request.version())
                },
                agent: text(header::USER_AGENT).map(cut),
                scope: scope.clone(),
                parent: before.map(|parent| Parent {
                    span: parent.span,
                    is_remote: true,
                }),
                begun,
                client,
            })
        });
        let headers = request.headers_mut();
        headers.insert(TRACEPARENT, context.field());
        if scope.state.is_none() {
            headers.remove(TRACESTATE);
        }
        request.extensions_mut().insert(scope);
        served
    }
}

impl Request {
    /// What the guest was told of it.
    pub fn field(&self) -> HeaderValue {
        self.scope.context.field()
    }

    /// It is over. There was no response if there is no `status`; it was not
    /// complete if it is `broken`.
    pub fn end(self, status: Option<u16>, broken: bool) {
        let Self {
            scope,
            parent,
            begun,
            head,
            client,
            agent,
        } = self;
        let what = What::Served(Served {
            request: head,
            client,
            agent,
            status,
            broken,
        });
        scope.export(scope.context, parent, begun, what);
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
