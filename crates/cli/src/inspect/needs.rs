//! What a program can ask for, by what it imports.

use serde::Serialize;

/// Where a core module's imports come from.
const PREVIEW_1: &str = "wasi_snapshot_preview1.";

/// Something that a program can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    Environment,
    Streams,
    Files,
    Sockets,
    OutboundHttp,
    Config,
    Clocks,
    Random,
}

/// With which imports it comes, and what gives it, in words.
const NEEDS: [(Need, &[&str], &str); 8] = [
    (
        Need::Environment,
        &["wasi:cli/environment", "args_get", "environ_get"],
        "arguments and environment: what the container has, nothing of the host's",
    ),
    (
        Need::Streams,
        &["wasi:cli/std", "fd_read", "fd_write"],
        "standard input, output and error: the container's",
    ),
    (
        Need::Files,
        &["wasi:filesystem", "path_", "fd_prestat_get"],
        "files: those of the image, to read unless io.wisp.fs.root says rw or none, and volumes",
    ),
    (
        Need::Sockets,
        &["wasi:sockets", "sock_"],
        "sockets: none unless io.wisp.net.outbound or io.wisp.net.listen grants them",
    ),
    (
        Need::OutboundHttp,
        &["wasi:http/outgoing-handler", "wasi:http/client"],
        "outbound HTTP: none unless io.wisp.net.outbound grants it",
    ),
    (
        Need::Config,
        &["wasi:config"],
        "values of configuration: those of io.wisp.config.NAME and io.wisp.config-dir",
    ),
    (
        Need::Clocks,
        &["wasi:clocks", "clock_", "poll_oneoff"],
        "clocks: always there",
    ),
    (
        Need::Random,
        &["wasi:random", "random_get"],
        "random numbers: always there",
    ),
];

impl Need {
    /// Those that come with `imports`.
    pub fn of(imports: &[String]) -> Vec<Self> {
        let has = |prefixes: &[&str]| {
            imports.iter().any(|import| {
                let name = import.strip_prefix(PREVIEW_1).unwrap_or(import);
                prefixes.iter().any(|prefix| name.starts_with(prefix))
            })
        };
        let needed = NEEDS.iter().filter(|(_, prefixes, _)| has(prefixes));
        needed.map(|(need, ..)| *need).collect()
    }

    /// What gives it, in words.
    pub fn words(self) -> &'static str {
        let entry = NEEDS.iter().find(|(need, ..)| *need == self);
        entry.map_or("", |(.., words)| words)
    }
}

/// The packages of `imports`, each once, as `io.wisp.interfaces.allow` has them.
pub fn packages(imports: &[String]) -> Vec<String> {
    let mut packages: Vec<String> = imports
        .iter()
        .filter_map(|import| match import.strip_prefix(PREVIEW_1) {
            Some(_) => Some(PREVIEW_1.trim_end_matches('.').to_owned()),
            None => import
                .split_once('/')
                .map(|(package, _)| package.to_owned())
                .filter(|package| package.contains(':')),
        })
        .collect();
    packages.sort();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn needs_and_packages_follow_from_imports() {
        let component = imports(&[
            "wasi:cli/stdout@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:http/types@0.2.6",
            "wasi:config/store@0.2.0-rc.1",
        ]);
        assert_eq!(
            Need::of(&component),
            [Need::Streams, Need::OutboundHttp, Need::Config]
        );
        assert_eq!(
            packages(&component),
            ["wasi:cli", "wasi:config", "wasi:http"]
        );
        let module = imports(&[
            "wasi_snapshot_preview1.fd_write",
            "wasi_snapshot_preview1.path_open",
        ]);
        assert_eq!(Need::of(&module), [Need::Streams, Need::Files]);
        assert_eq!(packages(&module), ["wasi_snapshot_preview1"]);
        assert!(Need::of(&[]).is_empty() && packages(&[]).is_empty());
    }
}
