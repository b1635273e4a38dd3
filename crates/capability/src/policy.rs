//! What the node's owner lets pods ask for.

use std::collections::BTreeMap;

use crate::annotation;
use crate::environment::matches;
use crate::error::CapabilityError;
use crate::grant::RootAccess;
use crate::interfaces::Interfaces;
use crate::limits::{Cap, Limits, Source, stricter};
use crate::rules::Rules;

/// The profile of who picks none.
const DEFAULT: &str = "default";

/// The profiles that every node has, unless its settings have others of these
/// names.
pub const PROFILES: [&str; 3] = ["strict", DEFAULT, "open"];

/// A node's policy. The default asks nothing and forbids nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// For all containers.
    pub node: Terms,
    /// More, for those of a namespace.
    pub namespaces: BTreeMap<String, Terms>,
    /// By their names, in place of or beside the three there are.
    pub profiles: BTreeMap<String, Profile>,
}

/// What holds for some containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The profile of pods that pick none.
    pub profile: Option<String>,
    /// The profiles that pods may pick; all, if there is no list.
    pub profiles: Option<Vec<String>>,
    /// The annotations that pods may use, each of which may end in `*`; all,
    /// if there is no list.
    pub annotations: Option<Vec<String>>,
    pub ceiling: Ceiling,
}

/// What nobody gets more of, whatever is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceiling {
    pub fs_root: Option<RootAccess>,
    pub net_outbound: Option<Rules>,
    pub net_listen: Option<Rules>,
    /// In bytes, of all instances together.
    pub memory_max: Option<u64>,
    /// In bytes, of one instance.
    pub memory_instance_max: Option<u64>,
    /// Packages and interfaces that no program may import.
    pub interfaces_deny: Vec<String>,
}

/// What pods get that pick it by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// As if the pod had these annotations; its own come first.
    pub annotations: BTreeMap<String, String>,
    pub ceiling: Ceiling,
}

/// What holds for one container.
pub(crate) struct Applied {
    /// The pod's annotations and the profile's.
    pub annotations: BTreeMap<String, String>,
    ceilings: [(Ceiling, Setter); 3],
}

/// Who has set a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setter {
    Node,
    Namespace,
    Profile,
}

impl Setter {
    fn setting(self, name: &'static str) -> String {
        match self {
            Self::Node => format!("policy.ceiling.{name} of the node"),
            Self::Namespace => format!("ceiling.{name} of the namespace"),
            Self::Profile => format!("ceiling.{name} of the profile"),
        }
    }

    fn memory(self) -> Source {
        Source::Policy(match self {
            Self::Node => "policy.ceiling.memory_max",
            Self::Namespace => "ceiling.memory_max of the namespace",
            Self::Profile => "ceiling.memory_max of the profile",
        })
    }

    fn instance(self) -> Source {
        Source::Policy(match self {
            Self::Node => "policy.ceiling.memory_instance_max",
            Self::Namespace => "ceiling.memory_instance_max of the namespace",
            Self::Profile => "ceiling.memory_instance_max of the profile",
        })
    }
}

impl Policy {
    /// Whether there is a profile of this name.
    pub fn has_profile(&self, name: &str) -> bool {
        self.profiles.contains_key(name) || PROFILES.contains(&name)
    }

    fn profile(&self, name: &str) -> Option<Profile> {
        if let Some(own) = self.profiles.get(name) {
            return Some(own.clone());
        }
        let nothing = Some(Rules::default());
        let annotations = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        match name {
            "strict" => Some(Profile {
                annotations: annotations(&[(annotation::FS_ROOT, "none")]),
                ceiling: Ceiling {
                    fs_root: Some(RootAccess::None),
                    net_outbound: nothing.clone(),
                    net_listen: nothing,
                    ..Ceiling::default()
                },
            }),
            DEFAULT => Some(Profile::default()),
            "open" => Some(Profile {
                annotations: annotations(&[
                    (annotation::FS_ROOT, "rw"),
                    (annotation::NET_OUTBOUND, "*"),
                    (annotation::NET_LISTEN, "*"),
                ]),
                ceiling: Ceiling::default(),
            }),
            _ => None,
        }
    }

    /// What holds for a container with these annotations in `namespace`.
    ///
    /// # Errors
    /// An annotation or a profile that is not known, or not the pod's to use.
    pub(crate) fn apply(
        &self,
        asked: &BTreeMap<String, String>,
        namespace: &str,
    ) -> Result<Applied, CapabilityError> {
        let none = Terms::default();
        let own = self.namespaces.get(namespace).unwrap_or(&none);
        for key in asked
            .keys()
            .filter(|key| key.starts_with(annotation::PREFIX))
        {
            if !annotation::is_known(key) {
                return Err(CapabilityError::UnknownAnnotation { key: key.clone() });
            }
            for terms in [&self.node, own] {
                if let Some(allowed) = &terms.annotations
                    && !allowed.iter().any(|pattern| matches(pattern, key))
                {
                    return Err(CapabilityError::NotTheirs {
                        key: key.clone(),
                        allowed: allowed.join(", "),
                    });
                }
            }
        }
        let picked = asked.get(annotation::PROFILE).map(|name| name.trim());
        let set = own.profile.as_deref().or(self.node.profile.as_deref());
        let name = picked.or(set).unwrap_or(DEFAULT);
        let refused = |problem: String| CapabilityError::Annotation {
            key: annotation::PROFILE,
            value: name.to_owned(),
            problem,
        };
        if picked.is_some() {
            for terms in [&self.node, own] {
                if let Some(may) = &terms.profiles
                    && !may.iter().any(|known| known == name)
                {
                    return Err(refused(format!(
                        "the node's policy lets pods pick: {}",
                        may.join(", ")
                    )));
                }
            }
        }
        let profile = self.profile(name).ok_or_else(|| {
            let names: Vec<&str> = PROFILES
                .into_iter()
                .chain(self.profiles.keys().map(String::as_str))
                .collect();
            refused(format!(
                "no profile has this name; there are {}",
                names.join(", ")
            ))
        })?;
        let mut annotations = profile.annotations;
        annotations.extend(
            asked
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        Ok(Applied {
            annotations,
            ceilings: [
                (self.node.ceiling.clone(), Setter::Node),
                (own.ceiling.clone(), Setter::Namespace),
                (profile.ceiling, Setter::Profile),
            ],
        })
    }
}

impl Applied {
    /// The root that is granted of `root`: what nobody asked for is lowered,
    /// what somebody did is refused if it is too much.
    pub fn root(&self, root: RootAccess) -> Result<RootAccess, CapabilityError> {
        let mut granted = root;
        for (ceiling, setter) in &self.ceilings {
            let Some(most) = ceiling.fs_root else {
                continue;
            };
            if rank(granted) <= rank(most) {
                continue;
            }
            if self.annotations.contains_key(annotation::FS_ROOT) {
                return Err(self.beyond(annotation::FS_ROOT, "", setter.setting("fs_root")));
            }
            granted = most;
        }
        Ok(granted)
    }

    /// Refuses rules that grant more than the policy does.
    pub fn network(&self, outbound: &Rules, listen: &Rules) -> Result<(), CapabilityError> {
        for (ceiling, setter) in &self.ceilings {
            let sides = [
                (
                    outbound,
                    &ceiling.net_outbound,
                    annotation::NET_OUTBOUND,
                    "net_outbound",
                ),
                (
                    listen,
                    &ceiling.net_listen,
                    annotation::NET_LISTEN,
                    "net_listen",
                ),
            ];
            for (rules, most, key, name) in sides {
                if let Some(most) = most
                    && let Some(rule) = rules.first_beyond(most)
                {
                    return Err(self.beyond(key, &rule, setter.setting(name)));
                }
            }
        }
        Ok(())
    }

    /// Lowers limits to what the policy allows.
    pub fn limits(&self, limits: &mut Limits) {
        for (ceiling, setter) in &self.ceilings {
            let cap = |bytes: Option<u64>, by| bytes.map(|bytes| Cap { bytes, by });
            limits.memory = stricter(limits.memory, cap(ceiling.memory_max, setter.memory()));
            let instance = cap(ceiling.memory_instance_max, setter.instance());
            limits.instance = stricter(limits.instance, instance);
        }
    }

    /// Denies the interfaces that the policy denies.
    pub fn interfaces(&self, interfaces: &mut Interfaces) {
        for (ceiling, _) in &self.ceilings {
            interfaces.forbid(&ceiling.interfaces_deny);
        }
    }

    fn beyond(&self, key: &'static str, part: &str, setting: String) -> CapabilityError {
        CapabilityError::Beyond {
            key,
            value: match part {
                "" => self.annotations.get(key).cloned().unwrap_or_default(),
                part => part.to_owned(),
            },
            setting,
        }
    }
}

fn rank(root: RootAccess) -> u8 {
    match root {
        RootAccess::None => 0,
        RootAccess::Ro => 1,
        RootAccess::Rw => 2,
    }
}

/// Whether `value` could be the value of the annotation `key`, for who sets
/// annotations in advance: a profile.
///
/// # Errors
/// What is wrong with it.
pub fn check(key: &str, value: &str) -> Result<(), String> {
    if key == annotation::PROFILE {
        return Err(format!("{key}: a profile cannot pick a profile"));
    }
    let annotations = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    crate::grant(&crate::Request {
        args: &["x".to_owned()],
        env: &[],
        cwd: "/",
        annotations: &annotations,
        mounts: &[],
        root_readonly: false,
        host_network: false,
        memory_limit: None,
        namespace: "",
        policy: &Policy::default(),
    })
    .map(drop)
    .map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
