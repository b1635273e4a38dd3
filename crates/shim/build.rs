//! Links the shim for a fixed address.
//!
//! A position-independent program has its tables of functions relocated at each
//! start: a megabyte that every process of every container would have for its
//! own, and a millisecond of each `init`. At a fixed address these pages stay
//! those of the file and are shared by all (see docs/start-up.md).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Where the C library is linked statically, the relocation model says it.
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
