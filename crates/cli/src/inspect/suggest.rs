//! The annotations that give a program what it imports and nothing else.

use wisp_capability::annotation;

use super::needs::{Need, packages};
use super::program::Program;

/// One annotation to paste.
#[derive(Debug, PartialEq, Eq)]
pub struct Suggestion {
    pub key: &'static str,
    pub value: String,
    /// What there is to say about it.
    pub note: &'static str,
}

/// The annotations for `program`.
pub fn suggest(program: &Program) -> Vec<Suggestion> {
    let has = |need| program.needs.contains(&need);
    let mut all = Vec::new();
    let mut add = |key, value: &str, note| {
        all.push(Suggestion {
            key,
            value: value.to_owned(),
            note,
        });
    };
    if !has(Need::Files) {
        add(annotation::FS_ROOT, "none", "it opens no files");
    }
    match (has(Need::Sockets), has(Need::OutboundHttp)) {
        (true, true) => add(
            annotation::NET_OUTBOUND,
            "https://HOST, tcp://HOST:PORT",
            "put the hosts that it calls",
        ),
        (true, false) => add(
            annotation::NET_OUTBOUND,
            "tcp://HOST:PORT",
            "put the hosts that it connects to, or leave it out",
        ),
        (false, true) => add(
            annotation::NET_OUTBOUND,
            "https://HOST",
            "put the hosts that it calls",
        ),
        (false, false) => {}
    }
    if has(Need::Sockets) {
        add(
            annotation::NET_LISTEN,
            "tcp://*:PORT",
            "put the ports that it listens on, or leave it out",
        );
    }
    if has(Need::Config) {
        add(
            "io.wisp.config.NAME",
            "VALUE",
            "put each value that it asks for",
        );
    }
    let packages = packages(&program.imports);
    if !packages.is_empty() {
        add(
            annotation::INTERFACES_ALLOW,
            &packages.join(", "),
            "what it imports, so that a later version that imports more is noticed",
        );
    }
    all
}

/// As a part of a YAML document.
pub fn yaml(suggestions: &[Suggestion]) -> String {
    suggestions
        .iter()
        .map(|Suggestion { key, value, note }| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("# {note}\n{key}: \"{value}\"\n")
        })
        .collect()
}
