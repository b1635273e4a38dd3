//! What a guest may do.
//!
//! [`grant`] turns what the container asks for (its process, its volumes and
//! its annotations) into one value, [`Grant`], that says everything the guest
//! gets. Deny is the default; only annotations widen it, never the image. There
//! is no IO here and no runtime, so the whole policy can be read and tested in
//! one place.
#![forbid(unsafe_code)]

mod address;
mod environment;
mod error;
mod grant;
mod interfaces;
mod limits;
mod policy;
mod rules;

pub use error::CapabilityError;
pub use grant::{Clocks, Grant, Preopen, Request, RootAccess, Volume, grant};
pub use interfaces::{Interfaces, list as interface_list};
pub use limits::{Cap, Limits, Source, amount, head_room};
pub use policy::{Ceiling, PROFILES, Policy, Profile, Terms, check};
pub use rules::{Rules, Scheme};

/// The annotations that are understood.
pub mod annotation {
    /// Every annotation of ours starts so.
    pub const PREFIX: &str = "io.wisp.";
    /// `ro` (default), `rw` or `none`.
    pub const FS_ROOT: &str = "io.wisp.fs.root";
    /// Whom the guest may call: rules, see [`crate::Rules`].
    pub const NET_OUTBOUND: &str = "io.wisp.net.outbound";
    /// Where the guest may listen with sockets of its own: rules.
    pub const NET_LISTEN: &str = "io.wisp.net.listen";
    /// Where the HTTP server of an HTTP component listens: `address:port`.
    pub const HTTP_LISTEN: &str = "io.wisp.http.listen";
    /// How much memory all instances may have together: an amount.
    pub const MEMORY_MAX: &str = "io.wisp.memory.max";
    /// How much memory one instance may have: an amount.
    pub const MEMORY_INSTANCE_MAX: &str = "io.wisp.memory.instance-max";
    /// Which directories the guest finds open: a list of `path[:ro|rw]`.
    pub const FS_PREOPENS: &str = "io.wisp.fs.preopens";
    /// The only variables the guest sees: names, which may end in `*`.
    pub const ENV_ALLOW: &str = "io.wisp.env.allow";
    /// Variables the guest does not see: names, which may end in `*`.
    pub const ENV_DENY: &str = "io.wisp.env.deny";
    /// How exact clocks are: `exact` (default) or `coarse`.
    pub const CLOCKS: &str = "io.wisp.clocks";
    /// Where random numbers come from: `host` (default) or `seed:NUMBER`.
    pub const RANDOM: &str = "io.wisp.random";
    /// The only packages and interfaces the program may import.
    pub const INTERFACES_ALLOW: &str = "io.wisp.interfaces.allow";
    /// Packages and interfaces the program must not import.
    pub const INTERFACES_DENY: &str = "io.wisp.interfaces.deny";
    /// What happens to a program that imports them: `refuse` (default) or `trap`.
    pub const INTERFACES_DENIED: &str = "io.wisp.interfaces.denied";
    /// A profile of the node's policy.
    pub const PROFILE: &str = "io.wisp.profile";
    /// Whatever follows is a name of `wasi:config`, with its value.
    pub const CONFIG: &str = "io.wisp.config.";
    /// A directory whose files are further values of `wasi:config`.
    pub const CONFIG_DIR: &str = "io.wisp.config-dir";
    /// All of them, but those that begin with [`CONFIG`].
    pub const ALL: [&str; 16] = [
        PROFILE,
        FS_ROOT,
        FS_PREOPENS,
        NET_OUTBOUND,
        NET_LISTEN,
        HTTP_LISTEN,
        ENV_ALLOW,
        ENV_DENY,
        MEMORY_MAX,
        MEMORY_INSTANCE_MAX,
        INTERFACES_ALLOW,
        INTERFACES_DENY,
        INTERFACES_DENIED,
        CONFIG_DIR,
        CLOCKS,
        RANDOM,
    ];

    /// Whether `key` is an annotation of ours that means something.
    pub fn is_known(key: &str) -> bool {
        let of_config = key
            .strip_prefix(CONFIG)
            .is_some_and(|name| !name.is_empty());
        of_config || ALL.contains(&key)
    }
}
