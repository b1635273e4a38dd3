//! An HTTP component for `wasi:http/handler` 0.3.

mod outbound;

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response};
use wasip3::wit_bindgen::StreamReader;
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Server);

struct Server;

impl wasip3::exports::http::handler::Guest for Server {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target.as_str(), ""));
        match path {
            "/" => text(200, "hello from wasi:http 0.3\n"),
            "/echo" => echo(request),
            "/method" => text(200, &format!("{}\n", method(&request.get_method()))),
            "/header" => text(200, &header(&request, query)),
            "/env" => text(200, &environment()),
            "/args" => text(200, &arguments()),
            "/file" => match std::fs::read(parameter(query, "path")) {
                Ok(content) => bytes(200, content),
                Err(e) => text(404, &format!("{}: {e}\n", parameter(query, "path"))),
            },
            "/log" => {
                println!("stdout of a request");
                eprintln!("stderr of a request");
                text(200, "logged\n")
            }
            "/outbound" => match outbound::get(parameter(query, "url")).await {
                Ok((status, body)) => Ok(response(status, body)),
                Err(reason) => text(502, &format!("{reason}\n")),
            },
            "/stream" => match parameter(query, "n").parse() {
                Ok(n) => Ok(lines(n)),
                Err(_) => text(400, "give n, a number of lines\n"),
            },
            "/sleep" => match parameter(query, "ms").parse::<u64>() {
                Ok(ms) => {
                    monotonic_clock::wait_for(ms * 1_000_000).await;
                    text(200, "awake\n")
                }
                Err(_) => text(400, "give ms, a number of milliseconds\n"),
            },
            "/deep" => text(200, &deep(query)),
            "/trap" => trap_here(),
            "/spin" => loop {
                std::hint::black_box(path);
            },
            _ => text(404, "nothing here\n"),
        }
    }
}

/// Waits at the end of so many calls.
fn deep(query: &str) -> String {
    let number = |name| parameter(query, name).parse().unwrap_or(0);
    format!("{}\n", descend(number("levels"), number("ms")))
}

/// Nothing that a compiler could make a loop of.
#[inline(never)]
fn descend(levels: u64, ms: u64) -> u64 {
    if levels == 0 {
        std::thread::sleep(std::time::Duration::from_millis(ms));
        return ms;
    }
    let below = descend(levels - 1, ms);
    below.rotate_left((levels & 7) as u32) ^ levels
}

#[inline(never)]
fn trap_here() -> ! {
    core::arch::wasm32::unreachable()
}

/// Gives the request's own stream to the response: the host moves the bytes.
fn echo(request: Request) -> Result<Response, ErrorCode> {
    let (_, consumed) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Request::consume_body(request, consumed);
    Ok(response(200, body))
}

fn text(status: u16, text: &str) -> Result<Response, ErrorCode> {
    bytes(status, text.as_bytes().to_vec())
}

fn bytes(status: u16, content: Vec<u8>) -> Result<Response, ErrorCode> {
    let (mut writer, body) = wit_stream::new();
    spawn_local(async move {
        // What is left over, a client that went away did not want.
        writer.write_all(content).await;
    });
    Ok(response(status, body))
}

/// `n` numbered lines, each written on its own while the response is sent.
fn lines(n: u64) -> Response {
    let (mut writer, body) = wit_stream::new();
    spawn_local(async move {
        for line in 0..n {
            let left = writer
                .write_all(format!("line {line}\n").into_bytes())
                .await;
            if !left.is_empty() {
                return;
            }
        }
    });
    response(200, body)
}

fn response(status: u16, body: StreamReader<u8>) -> Response {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    // Every status used here is one the interface accepts.
    let _ = response.set_status_code(status);
    response
}

/// The value of `name` in a query string, as it stands there.
fn parameter<'a>(query: &'a str, name: &str) -> &'a str {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map_or("", |(_, value)| value)
}

fn method(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => name,
    }
}

fn header(request: &Request, query: &str) -> String {
    let values = request.get_headers().get(parameter(query, "name"));
    values
        .iter()
        .map(|value| format!("{}\n", String::from_utf8_lossy(value)))
        .collect()
}

fn environment() -> String {
    let mut lines: Vec<_> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    lines.sort();
    lines.concat()
}

fn arguments() -> String {
    std::env::args().map(|a| format!("{a}\n")).collect()
}
