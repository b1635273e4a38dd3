//! Which interfaces a program may import.

use std::collections::BTreeMap;

use crate::annotation;

/// What preview 1's functions are imported from.
const PREVIEW_1: &str = "wasi_snapshot_preview1";

/// Streams and errors of the other packages; it reaches nothing by itself.
const IO: &str = "wasi:io";

/// Names of packages (`wasi:sockets`) and interfaces (`wasi:http/client`), and
/// what happens to a program that imports what is not allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// Only these, if there is a list.
    allow: Option<Vec<String>>,
    /// None of these.
    deny: Vec<String>,
    /// None of these, by the node's policy.
    policy: Vec<String>,
    trap: bool,
}

impl Interfaces {
    pub(crate) fn parse(
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, (&'static str, String)> {
        let names = |key: &'static str| {
            annotations
                .get(key)
                .map(|text| list(text).map_err(|problem| (key, problem)))
                .transpose()
        };
        let key = annotation::INTERFACES_DENIED;
        let trap = match annotations.get(key).map(|text| text.trim()) {
            None | Some("refuse") => false,
            Some("trap") => true,
            Some(_) => return Err((key, "must be refuse or trap".into())),
        };
        Ok(Self {
            allow: names(annotation::INTERFACES_ALLOW)?,
            deny: names(annotation::INTERFACES_DENY)?.unwrap_or_default(),
            policy: Vec::new(),
            trap,
        })
    }

    /// Denies what the node's policy denies, too.
    pub(crate) fn forbid(&mut self, names: &[String]) {
        self.policy.extend_from_slice(names);
    }

    /// Whether a program with a denied import runs, with that import trapping.
    pub fn traps(&self) -> bool {
        self.trap
    }

    /// Whether there is nothing to look at.
    pub fn is_everything(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty() && self.policy.is_empty()
    }

    /// Why `import`, an interface with its version or preview 1, is denied, and
    /// what would allow it; `None` if it is allowed.
    pub fn refusal(&self, import: &str) -> Option<String> {
        let name = import.split('@').next().unwrap_or(import);
        let package = name.split('/').next().unwrap_or(name);
        let has = |names: &[String]| names.iter().any(|known| known == name || known == package);
        if has(&self.policy) {
            return Some(
                "the node's policy denies it: ceiling.interfaces_deny has to lose it".into(),
            );
        }
        if has(&self.deny) {
            let key = annotation::INTERFACES_DENY;
            return Some(format!("annotation {key} has to lose it"));
        }
        match &self.allow {
            Some(allow) if !has(allow) && package != IO => {
                let key = annotation::INTERFACES_ALLOW;
                Some(format!("annotation {key} has to list {package}"))
            }
            _ => None,
        }
    }
}

/// A comma-separated list of packages and interfaces.
///
/// # Errors
/// The name that is none.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_name = |name: &str| {
        name == PREVIEW_1
            || name.split_once(':').is_some_and(|(namespace, rest)| {
                let (package, interface) = rest.split_once('/').unwrap_or((rest, "x"));
                part(namespace) && part(package) && part(interface)
            })
    };
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| match is_name(name) {
            true => Ok(name.to_owned()),
            false => Err(format!(
                "{name:?} is not a package or interface without its version, such as \
                 wasi:sockets or wasi:http/client"
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Interfaces, (&'static str, String)> {
        let annotations = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Interfaces::parse(&annotations)
    }

    #[test]
    fn all_are_allowed_unless_something_is_said() {
        let all = with(&[]).expect("valid");
        assert!(all.is_everything() && !all.traps());
        assert_eq!(all.refusal("wasi:sockets/tcp@0.2.6"), None);
    }

    #[test]
    fn a_denied_package_or_interface_names_the_annotation() {
        let deny = with(&[(
            annotation::INTERFACES_DENY,
            "wasi:sockets, wasi:http/client",
        )])
        .expect("valid");
        for (import, denied) in [
            ("wasi:sockets/tcp@0.2.6", true),
            ("wasi:http/client@0.3.0", true),
            ("wasi:http/types@0.3.0", false),
            ("wasi:cli/run@0.2.0", false),
            ("wasi:sockets-more/tcp@0.2.0", false),
        ] {
            let refusal = deny.refusal(import);
            assert_eq!(refusal.is_some(), denied, "{import}");
            assert!(refusal.is_none_or(|why| why.contains("io.wisp.interfaces.deny")));
        }
    }

    #[test]
    fn a_list_of_the_allowed_denies_the_rest() {
        let allow = with(&[
            (annotation::INTERFACES_ALLOW, "wasi:cli"),
            (annotation::INTERFACES_DENIED, "trap"),
        ])
        .expect("valid");
        assert!(allow.traps());
        assert_eq!(allow.refusal("wasi:cli/stdout@0.2.0"), None);
        assert_eq!(allow.refusal("wasi:io/streams@0.2.0"), None);
        let why = allow
            .refusal("wasi:clocks/wall-clock@0.2.0")
            .expect("denied");
        assert!(why.contains("has to list wasi:clocks"), "{why}");
        assert!(allow.refusal(PREVIEW_1).is_some());
        let mut all = with(&[]).expect("valid");
        all.forbid(&["wasi:sockets".to_owned()]);
        assert!(all.refusal("wasi:sockets/udp@0.2.0").is_some());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "sockets",
            "wasi:",
            "wasi:sockets@0.2.0",
            "wasi:a/b/c",
            "Wasi:x",
            ":a",
        ] {
            assert!(list(text).is_err(), "{text}");
        }
        let (key, _) = with(&[(annotation::INTERFACES_DENIED, "maybe")]).expect_err("wrong");
        assert_eq!(key, annotation::INTERFACES_DENIED);
    }
}
