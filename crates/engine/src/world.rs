//! What a program is made for, told by what it exports.

use std::fmt;

use crate::error::EngineError;

/// A generation of WASI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wasi {
    /// Preview 1: core modules.
    P1,
    /// 0.2.
    P2,
    /// 0.3.
    P3,
}

/// What a program is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Runs once, to its end.
    Command(Wasi),
    /// Answers HTTP requests until it is told to stop.
    Http(Wasi),
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, wasi) = match self {
            Self::Command(wasi) => ("command", wasi),
            Self::Http(wasi) => ("HTTP server", wasi),
        };
        let wasi = match wasi {
            Wasi::P1 => "preview 1",
            Wasi::P2 => "0.2",
            Wasi::P3 => "0.3",
        };
        write!(f, "{name} (WASI {wasi})")
    }
}

/// The exports that decide, in order of preference.
const COMPONENTS: [(&str, &str, World); 4] = [
    ("wasi:cli/run", "0.3.", World::Command(Wasi::P3)),
    ("wasi:cli/run", "0.2.", World::Command(Wasi::P2)),
    ("wasi:http/handler", "0.3.", World::Http(Wasi::P3)),
    ("wasi:http/incoming-handler", "0.2.", World::Http(Wasi::P2)),
];

/// The world of a component with these exports.
pub fn of_component<'a>(exports: impl Iterator<Item = &'a str>) -> Result<World, EngineError> {
    let exports: Vec<&str> = exports.collect();
    let has = |interface: &str, version: &str| {
        exports.iter().any(|export| {
            export
                .split_once('@')
                .is_some_and(|(name, rest)| name == interface && rest.starts_with(version))
        })
    };
    COMPONENTS
        .iter()
        .find(|(interface, version, _)| has(interface, version))
        .map(|(.., world)| *world)
        .ok_or_else(|| EngineError::World {
            kind: "component",
            found: exports.iter().map(|&name| name.into()).collect(),
            wants: "a component exports wasi:cli/run (0.2 or 0.3), wasi:http/incoming-handler \
                    (0.2) or wasi:http/handler (0.3)",
        })
}

/// The world of a core module with these exports, each with whether it is a
/// function without parameters and results.
pub fn of_module<'a>(exports: impl Iterator<Item = (&'a str, bool)>) -> Result<World, EngineError> {
    let exports: Vec<(&str, bool)> = exports.collect();
    if exports.contains(&("_start", true)) {
        return Ok(World::Command(Wasi::P1));
    }
    Err(EngineError::World {
        kind: "core module",
        found: exports.iter().map(|(name, _)| (*name).into()).collect(),
        wants: "a core module exports the function _start, without parameters and results \
                (WASI preview 1)",
    })
}

/// Which interfaces a component needs to be given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imports {
    /// `wasi:*@0.2` other than HTTP.
    pub wasi2: bool,
    /// `wasi:*@0.3` other than HTTP.
    pub wasi3: bool,
    /// `wasi:http@0.2`, which uses streams and errors of `wasi:io@0.2`.
    pub http2: bool,
    /// `wasi:http@0.3`.
    pub http3: bool,
    /// `wasi:config`.
    pub config: bool,
}

impl Imports {
    /// Of a component with imports of these names.
    pub fn of<'a>(imports: impl Iterator<Item = &'a str>) -> Self {
        let mut needs = Self::default();
        for import in imports {
            let Some((name, version)) = import.split_once('@') else {
                continue;
            };
            if name.starts_with("wasi:config/") {
                needs.config = true;
                continue;
            }
            let http = name.starts_with("wasi:http/");
            match (http, version.starts_with("0.3.")) {
                (false, false) => needs.wasi2 = true,
                (false, true) => needs.wasi3 = true,
                (true, false) => {
                    needs.wasi2 = true;
                    needs.http2 = true;
                }
                (true, true) => {
                    needs.wasi3 = true;
                    needs.http3 = true;
                }
            }
        }
        needs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(exports: &[&str]) -> Result<World, String> {
        of_component(exports.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn exports_decide_the_world() {
        for (exports, world) in [
            (&["wasi:cli/run@0.2.0"][..], World::Command(Wasi::P2)),
            (&["wasi:cli/run@0.2.12"], World::Command(Wasi::P2)),
            (&["wasi:cli/run@0.3.0"], World::Command(Wasi::P3)),
            (
                &["wasi:http/incoming-handler@0.2.3", "other"],
                World::Http(Wasi::P2),
            ),
            (&["wasi:http/handler@0.3.0"], World::Http(Wasi::P3)),
            (
                &["wasi:cli/run@0.2.0", "wasi:http/handler@0.3.0"],
                World::Command(Wasi::P2),
            ),
        ] {
            assert_eq!(component(exports), Ok(world), "{exports:?}");
        }
    }

    #[test]
    fn another_world_is_refused_with_what_was_found() {
        for exports in [
            &["acme:machine/start@1.0.0"][..],
            &["wasi:cli/run"],
            &["wasi:cli/run@0.20.0"],
            &["wasi:cli/run@1.0.0"],
            &["wasi:http/handler@0.2.0"],
        ] {
            let error = component(exports).expect_err("unsupported");
            assert!(error.contains(exports[0]), "{error}");
            assert!(error.contains("wasi:cli/run (0.2 or 0.3)"), "{error}");
        }
        let error = component(&[]).expect_err("unsupported");
        assert!(error.contains("exports nothing"), "{error}");
    }

    #[test]
    fn a_core_module_starts_at_start() {
        let world = of_module([("memory", false), ("_start", true)].into_iter());
        assert_eq!(world.ok(), Some(World::Command(Wasi::P1)));
        for export in [("_initialize", true), ("_start", false)] {
            let error = of_module([export].into_iter()).expect_err("no start");
            assert!(error.to_string().contains(export.0), "{error}");
        }
    }

    #[test]
    fn only_what_is_imported_is_needed() {
        let of = |names: &[&str]| Imports::of(names.iter().copied());
        assert_eq!(of(&[]), Imports::default());
        let old = of(&["wasi:cli/stdout@0.2.6", "wasi:io/streams@0.2.6"]);
        assert!(old.wasi2 && !old.wasi3 && !old.http2 && !old.http3);
        let mixed = of(&["wasi:http/types@0.2.0", "wasi:clocks/monotonic-clock@0.3.0"]);
        assert!(mixed.wasi2 && mixed.http2 && mixed.wasi3 && !mixed.http3);
        let config = of(&["wasi:config/store@0.2.0-rc.1"]);
        assert!(config.config && !config.wasi2);
        let new = of(&["wasi:http/client@0.3.0"]);
        assert!(new.wasi3 && new.http3 && !new.wasi2 && !new.http2);
    }
}
