//! `[policy]` and `[profiles]`: what pods may ask for.

use std::collections::BTreeMap;

use crate::Wrong;
use serde::Deserialize;
use toml::Spanned;
use wisp_capability::{Ceiling, Profile, RootAccess, Rules, Terms, amount, annotation};

/// `[policy]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    profile: Option<Spanned<String>>,
    profiles: Option<Vec<Spanned<String>>>,
    annotations: Option<Vec<Pattern>>,
    ceiling: Most,
    namespaces: BTreeMap<String, Own>,
}

/// `[policy.namespaces.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Own {
    profile: Option<Spanned<String>>,
    profiles: Option<Vec<Spanned<String>>>,
    annotations: Option<Vec<Pattern>>,
    ceiling: Most,
}

/// `[profiles.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnProfile {
    annotations: Preset,
    ceiling: Most,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Most {
    fs_root: Option<Root>,
    net_outbound: Option<Network>,
    net_listen: Option<Network>,
    memory_max: Option<Amount>,
    memory_instance_max: Option<Amount>,
    interfaces_deny: Names,
}

// Each of these is read from a text, so that what is wrong with it is told with
// its line.

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Root(RootAccess);

impl TryFrom<String> for Root {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "none" => Ok(Self(RootAccess::None)),
            "ro" => Ok(Self(RootAccess::Ro)),
            "rw" => Ok(Self(RootAccess::Rw)),
            _ => Err("must be \"ro\", \"rw\" or \"none\""),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Network(Rules);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Rules::parse(&text).map(Self)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Amount(u64);

impl TryFrom<String> for Amount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        amount(&text).map(Self)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Names(Vec<String>);

impl TryFrom<Vec<String>> for Names {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        wisp_capability::interface_list(&names.join(",")).map(Self)
    }
}

/// An annotation, or the beginning of some with a star behind it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(String);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let begins = |start: &str| {
            annotation::CONFIG.starts_with(start)
                || start.starts_with(annotation::CONFIG)
                || annotation::ALL.iter().any(|key| key.starts_with(start))
        };
        let known = match text.strip_suffix('*') {
            Some(start) => begins(start),
            None => annotation::is_known(&text),
        };
        match known {
            true => Ok(Self(text)),
            false => Err(format!("{text:?} is no annotation of wisp's")),
        }
    }
}

/// Annotations that stand in for the pod's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
struct Preset(BTreeMap<String, String>);

impl TryFrom<BTreeMap<String, String>> for Preset {
    type Error = String;

    fn try_from(annotations: BTreeMap<String, String>) -> Result<Self, String> {
        for (key, value) in &annotations {
            if !annotation::is_known(key) {
                return Err(format!("{key:?} is no annotation of wisp's"));
            }
            wisp_capability::check(key, value)?;
        }
        Ok(Self(annotations))
    }
}

impl Most {
    fn ceiling(&self) -> Ceiling {
        Ceiling {
            fs_root: self.fs_root.as_ref().map(|root| root.0),
            net_outbound: self.net_outbound.as_ref().map(|rules| rules.0.clone()),
            net_listen: self.net_listen.as_ref().map(|rules| rules.0.clone()),
            memory_max: self.memory_max.as_ref().map(|amount| amount.0),
            memory_instance_max: self.memory_instance_max.as_ref().map(|amount| amount.0),
            interfaces_deny: self.interfaces_deny.0.clone(),
        }
    }
}

fn terms(
    profile: &Option<Spanned<String>>,
    profiles: &Option<Vec<Spanned<String>>>,
    annotations: &Option<Vec<Pattern>>,
    ceiling: &Most,
) -> Terms {
    let texts = |patterns: &Vec<Pattern>| patterns.iter().map(|p| p.0.clone()).collect();
    Terms {
        profile: profile.as_ref().map(|name| name.get_ref().clone()),
        profiles: profiles
            .as_ref()
            .map(|names| names.iter().map(|name| name.get_ref().clone()).collect()),
        annotations: annotations.as_ref().map(texts),
        ceiling: ceiling.ceiling(),
    }
}

impl Policy {
    /// What it means, with the profiles there are.
    pub(crate) fn value(&self, profiles: &BTreeMap<String, OwnProfile>) -> wisp_capability::Policy {
        let own = |own: &Own| terms(&own.profile, &own.profiles, &own.annotations, &own.ceiling);
        let profile = |profile: &OwnProfile| Profile {
            annotations: profile.annotations.0.clone(),
            ceiling: profile.ceiling.ceiling(),
        };
        wisp_capability::Policy {
            node: terms(
                &self.profile,
                &self.profiles,
                &self.annotations,
                &self.ceiling,
            ),
            namespaces: self
                .namespaces
                .iter()
                .map(|(n, o)| (n.clone(), own(o)))
                .collect(),
            profiles: profiles
                .iter()
                .map(|(n, p)| (n.clone(), profile(p)))
                .collect(),
        }
    }

    /// The first profile that is named and not there, with where it stands.
    pub(crate) fn check(&self, profiles: &BTreeMap<String, OwnProfile>) -> Result<(), Wrong> {
        let policy = self.value(profiles);
        let node = ("policy".to_owned(), &self.profile, &self.profiles);
        let own = self.namespaces.iter().map(|(namespace, own)| {
            let table = format!("policy.namespaces.{namespace}");
            (table, &own.profile, &own.profiles)
        });
        for (table, profile, listed) in std::iter::once(node).chain(own) {
            let named = (profile.iter().map(|name| ("profile", name)))
                .chain(listed.iter().flatten().map(|name| ("profiles", name)));
            for (field, name) in named {
                if !policy.has_profile(name.get_ref()) {
                    return Err(Wrong {
                        field: format!("{table}.{field}"),
                        problem: format!("{:?}: no profile has this name", name.get_ref()),
                        at: Some(name.span().start),
                    });
                }
            }
        }
        Ok(())
    }
}
