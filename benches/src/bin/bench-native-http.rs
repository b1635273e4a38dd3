//! The native server that components are compared with and call: hyper, a thread
//! and an event loop per processor, each connection on one of them for good. It
//! does what the guests `hello` and `work` do.
//!
//! ```text
//! bench-native-http ADDRESS:PORT
//! ```

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::thread;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

/// How much is sent at a time.
const CHUNK: &[u8] = &[b'.'; 64 * 1024];
const CHUNKS: usize = 160;

fn main() -> Result<()> {
    let address = std::env::args()
        .nth(1)
        .context("usage: bench-native-http ADDRESS:PORT")?;
    let listener = TcpListener::bind(&address).with_context(|| format!("listen at {address}"))?;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut turns = Vec::new();
    for _ in 0..threads {
        let (give, take) = unbounded_channel();
        turns.push(give);
        thread::spawn(move || serve(take));
    }
    for turn in turns.iter().cycle() {
        let (stream, _) = listener.accept().context("accept")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        turn.send(stream).context("a thread has ended")?;
    }
    Ok(())
}

fn serve(mut connections: UnboundedReceiver<TcpStream>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let others = Rc::new(Others::default());
    LocalSet::new().block_on(&runtime, async {
        while let Some(stream) = connections.recv().await {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let others = others.clone();
            spawn_local(async move {
                let answer = service_fn(move |request| answer(request, others.clone()));
                // Clients that leave are none of its business.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
        Ok(())
    })
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, others: Rc<Others>) -> Result<Response<Body>> {
    let body = match request.uri().path() {
        "/" => whole(Bytes::from_static(b"hello\n")),
        "/echo" => {
            let text = request.into_body().collect().await?.to_bytes();
            let value: serde_json::Value = serde_json::from_slice(&text)?;
            whole(serde_json::to_vec(&value)?.into())
        }
        "/stream" => {
            let chunk = || Ok(Frame::data(Bytes::from_static(CHUNK)));
            BodyExt::boxed(StreamBody::new(Chunks(CHUNKS, chunk)))
        }
        "/call" => {
            let authority = request.uri().query().context("/call?AUTHORITY")?.to_owned();
            whole(others.ask(&authority).await?)
        }
        _ => {
            let mut response = Response::new(whole(Bytes::new()));
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    Ok(Response::new(body))
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed()
}

/// So many chunks.
struct Chunks<F>(usize, F);

impl<T, F: Fn() -> T + Unpin> futures_core::Stream for Chunks<F> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        if self.0 == 0 {
            return std::task::Poll::Ready(None);
        }
        self.0 -= 1;
        std::task::Poll::Ready(Some((self.1)()))
    }
}

/// Connections to other servers, kept for the next request of this thread.
#[derive(Default)]
struct Others(RefCell<Vec<client::SendRequest<Empty<Bytes>>>>);

impl Others {
    async fn ask(&self, authority: &str) -> Result<Bytes> {
        let kept = self.0.borrow_mut().pop();
        let mut sender = match kept {
            Some(sender) if sender.is_ready() => sender,
            _ => connect(authority).await?,
        };
        let request = Request::get("/")
            .header(hyper::header::HOST, authority)
            .body(Empty::new())?;
        let response = sender.send_request(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        sender.ready().await?;
        self.0.borrow_mut().push(sender);
        Ok(body)
    }
}

async fn connect(authority: &str) -> Result<client::SendRequest<Empty<Bytes>>> {
    let stream = tokio::net::TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
    // Its end is seen where it is used.
    spawn_local(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
