//! The spans of requests that guests make.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

use super::context::{SpanContext, TRACEPARENT, TRACESTATE};
use super::ids;
use super::scope::Scope;
use super::span::{Called, Head, Outcome, Parent, What};

/// The requests that an instance is answering: what it calls others for.
#[derive(Default)]
pub struct Calls {
    scopes: Vec<Arc<Scope>>,
    /// There may be several, or there were, and what a guest does for one may go on.
    several: bool,
}

/// A request of a guest that is recorded. When it is dropped, it is over.
pub struct Call {
    scope: Arc<Scope>,
    context: SpanContext,
    parent: Parent,
    begun: Instant,
    called: Option<Called>,
}

impl Calls {
    /// The instance is given the request of `scope`.
    pub fn enter(&mut self, scope: Arc<Scope>) {
        self.scopes.push(scope);
    }

    /// The same, of an instance that may be given others at the same time.
    pub fn enter_among(&mut self, scope: Arc<Scope>) {
        self.several = true;
        self.scopes.push(scope);
    }

    /// It is done with it.
    pub fn leave(&mut self, scope: &Arc<Scope>) {
        self.scopes.retain(|known| !Arc::ptr_eq(known, scope));
    }

    /// Begins the span of `request`, which the instance makes, if it is to be
    /// recorded. The next server is told of it, unless the guest tells of a span of
    /// its own: then this one is below that, and the request is left as it is.
    ///
    /// Of an instance that answers several requests at once only the guest knows for
    /// which of them it calls.
    pub fn begin<B>(&self, request: &mut Request<B>) -> Option<Call> {
        let first = self.scopes.first()?;
        let told = request.headers().contains_key(TRACEPARENT);
        let guests = SpanContext::of(request.headers());
        let parent = match guests {
            Some(context) => context,
            None if self.several => return None,
            None => first.context,
        };
        let context = SpanContext {
            span: ids::span()?,
            ..parent
        };
        if !told {
            let headers = request.headers_mut();
            headers.insert(TRACEPARENT, context.field());
            let state = first.state.as_deref().map(HeaderValue::from_str);
            if let Some(Ok(state)) = state
                && !headers.contains_key(TRACESTATE)
            {
                headers.insert(TRACESTATE, state);
            }
        }
        if !context.sampled {
            return None;
        }
        let (method, uri) = (request.method(), request.uri());
        Some(Call {
            context,
            parent: Parent {
                span: parent.span,
                is_remote: false,
            },
            begun: Instant::now(),
            called: Some(Called {
                request: Head::new(method, uri, None, request.version()),
                outcome: Outcome::GivenUp,
            }),
            scope: first.clone(),
        })
    }
}

impl Call {
    /// Notes what came of it. The response ends the span when all of it has been
    /// read, or nobody reads on.
    pub fn answered<T>(
        mut self,
        answered: Result<(Response<WasiBody>, T), Error>,
    ) -> Result<(Response<WasiBody>, T), Error> {
        match answered {
            Ok((response, io)) => {
                self.outcome(Outcome::Response(
                    response.status().as_u16(),
                    response.version(),
                ));
                let response = response.map(|body| {
                    use http_body_util::BodyExt;
                    Traced {
                        body,
                        call: Some(self),
                    }
                    .boxed_unsync()
                });
                Ok((response, io))
            }
            Err(error) => {
                self.outcome(Outcome::Failed(name(&error)));
                Err(error)
            }
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        if let Some(called) = &mut self.called {
            called.outcome = outcome;
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(called) = self.called.take() {
            let parent = Some(self.parent);
            self.scope
                .export(self.context, parent, self.begun, What::Called(called));
        }
    }
}

/// A response's body, with the span that ends with it.
pub struct Traced {
    body: WasiBody,
    call: Option<Call>,
}

impl Body for Traced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                if let Some(mut call) = self.call.take() {
                    call.outcome(Outcome::Failed(name(error)));
                }
            }
            None => self.call = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An error's name in `wasi:http/types`, `error-code`.
fn name(error: &Error) -> &'static str {
    match error {
        Error::DnsTimeout => "DNS-timeout",
        Error::DnsError { .. } => "DNS-error",
        Error::DestinationIpProhibited => "destination-IP-prohibited",
        Error::DestinationIpUnroutable => "destination-IP-unroutable",
        Error::ConnectionRefused => "connection-refused",
        Error::ConnectionTerminated => "connection-terminated",
        Error::ConnectionTimeout => "connection-timeout",
        Error::ConnectionReadTimeout => "connection-read-timeout",
        Error::ConnectionWriteTimeout => "connection-write-timeout",
        Error::ConnectionLimitReached => "connection-limit-reached",
        Error::TlsProtocolError | Error::Tls(_) => "TLS-protocol-error",
        Error::TlsCertificateError => "TLS-certificate-error",
        Error::TlsAlertReceived { .. } => "TLS-alert-received",
        Error::HttpRequestDenied => "HTTP-request-denied",
        Error::HttpRequestMethodInvalid => "HTTP-request-method-invalid",
        Error::HttpRequestUriInvalid => "HTTP-request-URI-invalid",
        Error::HttpRequestBodySize(_) => "HTTP-request-body-size",
        Error::HttpResponseIncomplete => "HTTP-response-incomplete",
        Error::HttpResponseHeaderSectionSize(_) => "HTTP-response-header-section-size",
        Error::HttpResponseTimeout => "HTTP-response-timeout",
        Error::HttpProtocolError | Error::Hyper(_) => "HTTP-protocol-error",
        Error::InternalError(_) => "internal-error",
        // What semantic conventions call what has no name.
        _ => "_OTHER",
    }
}
