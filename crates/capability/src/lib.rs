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
mod http;
mod interfaces;
mod limits;
mod policy;
mod rules;

pub use error::CapabilityError;
pub use grant::{Clocks, Grant, Preopen, Request, RootAccess, Volume, grant};
pub use http::{AccessLog, HttpServer};
pub use interfaces::{Interfaces, list as interface_list};
pub use limits::{Cap, FURTHER_HOST, Limits, Source, amount, head_room};
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
    /// How many requests are worked on at once: a number.
    pub const HTTP_MAX_REQUESTS: &str = "io.wisp.http.max-requests";
    /// How many more may wait: a number.
    pub const HTTP_QUEUE: &str = "io.wisp.http.queue";
    /// How many clients may be connected: a number.
    pub const HTTP_MAX_CONNECTIONS: &str = "io.wisp.http.max-connections";
    /// The longest head of a request: an amount.
    pub const HTTP_MAX_HEADER: &str = "io.wisp.http.max-header";
    /// The longest body of a request: an amount.
    pub const HTTP_MAX_BODY: &str = "io.wisp.http.max-body";
    /// How long the guest may take to begin a response: a time.
    pub const HTTP_REQUEST_TIMEOUT: &str = "io.wisp.http.request-timeout";
    /// How long the guest may work for a request in all: a time.
    pub const HTTP_WORK_TIMEOUT: &str = "io.wisp.http.work-timeout";
    /// How long a connection may be without a request: a time.
    pub const HTTP_IDLE_TIMEOUT: &str = "io.wisp.http.idle-timeout";
    /// How long the head of a request may take: a time.
    pub const HTTP_HEADER_TIMEOUT: &str = "io.wisp.http.header-timeout";
    /// How long requests may go on after the signal to stop: a time.
    pub const HTTP_GRACE: &str = "io.wisp.http.grace";
    /// How many requests one instance answers: a number.
    pub const HTTP_REUSE: &str = "io.wisp.http.reuse";
    /// How many of them at once, where its WASI version lets it: a number.
    pub const HTTP_CONCURRENCY: &str = "io.wisp.http.concurrency";
    /// A path that the host answers: for probes.
    pub const HTTP_HEALTH: &str = "io.wisp.http.health";
    /// `off` (default), `common` or `json`.
    pub const HTTP_ACCESS_LOG: &str = "io.wisp.http.access-log";
    /// Where metrics are served: `address:port`.
    pub const METRICS_LISTEN: &str = "io.wisp.metrics.listen";
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
    pub const ALL: [&str; 31] = [
        PROFILE,
        FS_ROOT,
        FS_PREOPENS,
        NET_OUTBOUND,
        NET_LISTEN,
        HTTP_LISTEN,
        HTTP_MAX_REQUESTS,
        HTTP_QUEUE,
        HTTP_MAX_CONNECTIONS,
        HTTP_MAX_HEADER,
        HTTP_MAX_BODY,
        HTTP_REQUEST_TIMEOUT,
        HTTP_WORK_TIMEOUT,
        HTTP_IDLE_TIMEOUT,
        HTTP_HEADER_TIMEOUT,
        HTTP_GRACE,
        HTTP_REUSE,
        HTTP_CONCURRENCY,
        HTTP_HEALTH,
        HTTP_ACCESS_LOG,
        METRICS_LISTEN,
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
