//! An HTTP component for `wasi:http/incoming-handler` 0.2.

mod answer;
mod outbound;

use answer::Answer;
use wasip2::http::types::{IncomingRequest, Method, ResponseOutparam};

wasip2::http::proxy::export!(Server);

struct Server;

impl wasip2::exports::http::incoming_handler::Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target.as_str(), ""));
        let answer = Answer::new(out);
        let sent = match path {
            "/" => answer.text(200, "hello from wasi:http 0.2\n"),
            "/echo" => answer.echo(request),
            "/method" => answer.text(200, &format!("{}\n", method(&request.method()))),
            "/header" => answer.text(200, &header(&request, query)),
            "/env" => answer.text(200, &environment()),
            "/args" => answer.text(200, &arguments()),
            "/file" => match std::fs::read(parameter(query, "path")) {
                Ok(bytes) => answer.bytes(200, &bytes),
                Err(e) => answer.text(404, &format!("{}: {e}\n", parameter(query, "path"))),
            },
            "/log" => {
                println!("stdout of a request");
                eprintln!("stderr of a request");
                answer.text(200, "logged\n")
            }
            "/outbound" => match outbound::get(parameter(query, "url")) {
                Ok((status, body)) => answer.relay(status, body),
                Err(reason) => answer.text(502, &format!("{reason}\n")),
            },
            "/stream" => match parameter(query, "n").parse() {
                Ok(n) => answer.lines(n),
                Err(_) => answer.text(400, "give n, a number of lines\n"),
            },
            "/sleep" => match parameter(query, "ms").parse() {
                Ok(ms) => {
                    std::thread::sleep(std::time::Duration::from_millis(ms));
                    answer.text(200, "awake\n")
                }
                Err(_) => answer.text(400, "give ms, a number of milliseconds\n"),
            },
            "/deep" => answer.text(200, &deep(query)),
            "/trap" => trap_here(),
            "/spin" => loop {
                std::hint::black_box(path);
            },
            _ => answer.text(404, "nothing here\n"),
        };
        if let Err(e) = sent {
            // The client went away, most likely: that is not worth a trap.
            eprintln!("{path}: {e}");
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

fn header(request: &IncomingRequest, query: &str) -> String {
    let values = request.headers().get(parameter(query, "name"));
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
