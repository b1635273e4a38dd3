//! What a guest may do.
//!
//! [`grant`] turns what the container asks for (its process, its volumes and
//! its annotations) into one value, [`Grant`], that says everything the guest
//! gets. Deny is the default; only annotations widen it, never the image. There
//! is no IO here and no runtime, so the whole policy can be read and tested in
//! one place.
#![forbid(unsafe_code)]

mod address;
mod error;
mod grant;
mod rules;

pub use error::CapabilityError;
pub use grant::{Grant, Preopen, Request, RootAccess, Volume, grant};
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
    /// All of them.
    pub const ALL: [&str; 4] = [FS_ROOT, NET_OUTBOUND, NET_LISTEN, HTTP_LISTEN];
}
