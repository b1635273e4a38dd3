use std::fmt;

use crate::digest::{Digest, Hasher};
use crate::settings::{WASMTIME_VERSION, describe};

/// How many digits the host's part of a key has.
pub(crate) const HOST_LENGTH: usize = 16;

/// What the names of files with code end with.
const EXTENSION: &str = ".aot";

/// What files of code look like; see `cache/trailer.rs`.
const FORMAT: &str = "trailer 1";

/// Names the code of one program for this runtime on this processor.
///
/// It is made without a compiler: from the digest of the program, the exact
/// version of Wasmtime, the engine's settings, the target and those features of
/// the processor that code may use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    program: Digest,
    host: String,
}

impl Key {
    /// The key of the program with `digest`, here and now.
    pub fn new(digest: &Digest) -> Self {
        Self {
            program: digest.clone(),
            host: Self::here(),
        }
    }

    /// What [`Self::host`] is of every key that this wisp makes on this machine.
    pub fn here() -> String {
        fingerprint(&format!(
            "{FORMAT}\nwasmtime {WASMTIME_VERSION}\n{}\n{}-{}\n{}",
            describe(),
            std::env::consts::ARCH,
            std::env::consts::OS,
            features().join(" "),
        ))
    }

    /// The key that `text` is, in the form in which keys are written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (program, host) = text.split_once('-')?;
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if host.len() != HOST_LENGTH || !host.bytes().all(lower) {
            return None;
        }
        Some(Self {
            program: format!("sha256:{program}").parse().ok()?,
            host: host.into(),
        })
    }

    /// The key that a file of code has in its name.
    pub(crate) fn of_file(name: &str) -> Option<Self> {
        Self::parse(name.strip_suffix(EXTENSION)?)
    }

    /// The name of the file with the code.
    pub fn file_name(&self) -> String {
        format!("{self}{EXTENSION}")
    }

    /// The digest of the program.
    pub fn program(&self) -> &Digest {
        &self.program
    }

    /// Everything but the program, as a fingerprint: keys of one wisp on one
    /// processor have the same.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// The program's digest and the host's part, in hexadecimal.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.program.hex(), self.host)
    }
}

fn fingerprint(text: &str) -> String {
    let mut hasher = Hasher::default();
    hasher.update(text.as_bytes());
    let mut hex = hasher.finish().hex();
    hex.truncate(HOST_LENGTH);
    hex
}

/// The processor's features that Cranelift has a use for.
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($detect:ident: $($name:tt)*) => {{
            let mut found = Vec::new();
            $(if std::arch::$detect!($name) {
                found.push($name);
            })*
            found
        }};
    }
    #[cfg(target_arch = "x86_64")]
    return detected!(is_x86_feature_detected: "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "avx"
        "avx2" "fma" "bmi1" "bmi2" "lzcnt" "cmpxchg16b" "avx512bitalg" "avx512dq" "avx512f"
        "avx512vl" "avx512vbmi");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected: "lse" "paca" "fp16" "dotprod");
    #[allow(unreachable_code, reason = "each architecture above returns")]
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(content: &str) -> Digest {
        Digest::of(&mut content.as_bytes()).expect("bytes")
    }

    #[test]
    fn a_key_is_the_same_each_time_and_differs_by_program() {
        let key = Key::new(&digest("a"));
        assert_eq!(key, Key::new(&digest("a")));
        assert_eq!(key.host(), Key::here());
        assert_ne!(key, Key::new(&digest("b")));
    }

    #[test]
    fn a_key_is_a_plain_file_name() {
        let name = Key::new(&digest("a")).file_name();
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)),
            "{name}"
        );
        assert_eq!(name.len(), 64 + 1 + 16 + 4);
    }

    #[test]
    fn a_key_reads_as_it_is_written() {
        let key = Key::new(&digest("a"));
        assert_eq!(Key::of_file(&key.file_name()), Some(key.clone()));
        assert_eq!(Key::parse(&key.to_string()), Some(key.clone()));
        let long = format!("{key}0.aot");
        let upper = key.file_name().to_uppercase();
        for name in [
            "",
            ".aot",
            "-.aot",
            "a-b.aot",
            &key.to_string(),
            &long,
            &upper,
        ] {
            assert_eq!(Key::of_file(name), None, "{name}");
        }
    }

    #[test]
    fn the_fingerprint_tells_hosts_apart() {
        assert_ne!(fingerprint("avx"), fingerprint("avx2"));
        assert_eq!(fingerprint("avx").len(), 16);
    }
}
