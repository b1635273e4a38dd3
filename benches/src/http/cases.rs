//! What servers are asked to do.

use crate::http::connection::Exchange;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How many requests an instance of the component answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// One: the next has a fresh instance.
    Fresh,
    /// [`REUSE`], one after the other.
    Reused,
    /// [`REUSE`], up to [`AT_ONCE`] of them at once.
    Shared,
}

/// How many requests at once an instance answers that may be shared: as many as
/// `wasmtime serve` gives it.
pub const AT_ONCE: u32 = 16;

/// How many connections there are where their number is not the question.
pub const CONNECTIONS: usize = 32;

/// How many requests an instance answers that is used again.
pub const REUSE: u32 = 128;

/// The version of the interface that the component exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    P2,
    P3,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Six bytes.
    Hello,
    /// 64 KiB of JSON, read and written again.
    Echo,
    /// 10 MiB.
    Stream,
    /// What another server says, which is six bytes.
    Call,
}

/// One kind of request to one kind of component.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name in measures.
    pub name: &'static str,
    /// What the report calls it.
    pub title: &'static str,
    /// What it is, for the report.
    pub what: &'static str,
    /// The component, by its name without `.wasm`.
    pub guest: &'static str,
    pub interface: Interface,
    pub instances: Instances,
    pub request: Request,
}

/// All of them.
pub fn cases() -> Vec<Case> {
    use Instances::{Fresh, Reused, Shared};
    use Interface::{P2, P3};
    use Request::{Call, Echo, Hello, Stream};
    [
        (
            "hello-02-fresh",
            "hello, 0.2, fresh",
            "A component of WASI 0.2 that answers with six bytes; an instance for each request.",
            ("hello_02", P2, Fresh, Hello),
        ),
        (
            "hello-02-reuse",
            "hello, 0.2, reused",
            "The same with instances that answer 128 requests, one after the other.",
            ("hello_02", P2, Reused, Hello),
        ),
        (
            "hello-03-fresh",
            "hello, 0.3, fresh",
            "A component of WASI 0.3 that answers with six bytes; an instance for each request.",
            ("hello_03", P3, Fresh, Hello),
        ),
        (
            "hello-03-reuse",
            "hello, 0.3, reused",
            "The same with instances that answer 128 requests, one after the other.",
            ("hello_03", P3, Reused, Hello),
        ),
        (
            "hello-03-shared",
            "hello, 0.3, shared",
            "The same with instances that answer 128 requests, up to 16 at once.",
            ("hello_03", P3, Shared, Hello),
        ),
        (
            "echo-02",
            "64 KiB of JSON, 0.2, fresh",
            "Reads JSON of 64 KiB into values and writes them again; an instance for each request.",
            ("work_02", P2, Fresh, Echo),
        ),
        (
            "echo-03",
            "64 KiB of JSON, 0.3, reused",
            "The same with WASI 0.3 and instances that answer 128 requests.",
            ("work_03", P3, Reused, Echo),
        ),
        (
            "stream-02",
            "10 MiB, 0.2, fresh",
            "Sends 10 MiB, 64 KiB at a time, on 4 connections; an instance for each request.",
            ("work_02", P2, Fresh, Stream),
        ),
        (
            "stream-03",
            "10 MiB, 0.3, reused",
            "The same with WASI 0.3 and instances that answer 128 requests.",
            ("work_03", P3, Reused, Stream),
        ),
        (
            "call-02",
            "calls out, 0.2, fresh",
            "Asks the native server, on the client's core, for six bytes and answers with them; \
             an instance for each request.",
            ("work_02", P2, Fresh, Call),
        ),
        (
            "call-03",
            "calls out, 0.3, reused",
            "The same with WASI 0.3 and instances that answer 128 requests.",
            ("work_03", P3, Reused, Call),
        ),
        (
            "js-02",
            "JavaScript hello, 0.2, fresh",
            "A hello in JavaScript, with its engine a component of 12 MiB, made by ComponentizeJS; \
             an instance for each request, which is all that such a component can answer.",
            ("js_02", P2, Fresh, Hello),
        ),
    ]
    .map(
        |(name, title, what, (guest, interface, instances, request))| Case {
            name,
            title,
            what,
            guest,
            interface,
            instances,
            request,
        },
    )
    .to_vec()
}

impl Case {
    /// Whether it is what servers are compared by first.
    pub fn is_hello(&self) -> bool {
        self.name.starts_with("hello")
    }

    /// Whether most of the time is the guest's own.
    pub fn computes(&self) -> bool {
        self.request == Request::Echo || self.name == "js-02"
    }

    /// How many connections a server that works to capacity has.
    pub fn connections(&self) -> usize {
        match self.request {
            // More would share what there is, and end far apart.
            Request::Stream => 4,
            Request::Hello | Request::Echo | Request::Call => CONNECTIONS,
        }
    }

    /// Whether the native server does the same, to be compared with: it has no
    /// instances, so it stands beside those that are not made for each request.
    pub fn is_native(&self) -> bool {
        let is_work = self.request != Request::Hello && self.interface == Interface::P2;
        self.name == "hello-02-reuse" || is_work
    }

    /// The component's file.
    pub fn component(&self, guests: &Path) -> PathBuf {
        guests.join(self.guest).with_extension("wasm")
    }

    /// What goes over the wire; `upstream` is the server that components call.
    pub fn exchange(&self, upstream: SocketAddr) -> Exchange {
        match self.request {
            Request::Hello => Exchange::get("/", 6),
            Request::Echo => Exchange::post("/echo", &document()),
            Request::Stream => Exchange::get("/stream", 10 << 20),
            Request::Call => Exchange::get(&format!("/call?{upstream}"), 6),
        }
    }
}

/// JSON of 64 KiB that reads the same when it is written again: without spaces,
/// its keys in order.
fn document() -> Vec<u8> {
    const LENGTH: usize = 64 << 10;
    let entry = |number: usize| {
        json!({
            "active": number.is_multiple_of(3),
            "id": number,
            "name": format!("entry number {number}"),
            "tags": ["one", "two", "three"],
            "weight": number as f64 / 4.0,
        })
    };
    let mut entries: Vec<Value> = (0..500).map(entry).collect();
    let text = |entries: &[Value]| Value::from(entries.to_vec()).to_string();
    entries.push(Value::from(""));
    let missing = LENGTH - text(&entries).len();
    entries.pop();
    entries.push(Value::from("x".repeat(missing)));
    text(&entries).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_same_when_written_again() {
        let document = document();
        assert_eq!(document.len(), 64 << 10);
        let value: Value = serde_json::from_slice(&document).expect("JSON");
        assert_eq!(serde_json::to_vec(&value).expect("JSON"), document);
    }
}
