//! How much memory a guest may have.

use std::fmt;

use crate::annotation;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What the process around a guest needs for itself, whatever its guest does.
const HOST: u64 = 4 * MIB;

/// Beside that, what grows with the guest: page tables, buffers, connections.
const HOST_SHARE: u64 = 16;
const HOST_SHARE_MOST: u64 = 32 * MIB;

/// What the process around a further guest of a container takes, in bytes: the
/// code and tables that it has are its container's, and so it takes less than the
/// first.
pub const FURTHER_HOST: u64 = 2 * MIB;

/// What a guest may hand to its host in one call, where nothing limits memory,
/// in bytes.
const HOSTCALL_MOST: u64 = 128 * MIB;
const HOSTCALL_LEAST: u64 = MIB;

/// What one entry of the host's table of a guest's resources takes, in bytes,
/// with what it points to: measured, and rounded up.
const RESOURCE: u64 = 256;
const RESOURCES_LEAST: u64 = 4096;
const RESOURCES_MOST: u64 = 65_536;

/// The same for a call of 0.3 that is under way, which the guest may wait for later.
const CALL: u64 = 1024;
const CALLS_LEAST: u64 = 1024;
const CALLS_MOST: u64 = 65_536;

/// What a container's memory limit leaves to the guest's process itself, in
/// bytes: the rest is the guest's.
pub fn head_room(container: u64) -> u64 {
    let share = (container / HOST_SHARE).min(HOST_SHARE_MOST);
    (HOST + share).min(container)
}

/// The limits that a guest's annotations and the node's policy set. The
/// container's own comes on top: see [`Limits::in_sum`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The container's memory limit at its creation, in bytes.
    pub container: Option<u64>,
    /// Linear memories and tables of all instances together.
    pub memory: Option<Cap>,
    /// Those of one instance.
    pub instance: Option<Cap>,
}

/// A bound, and who has set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// In bytes.
    pub bytes: u64,
    /// Who can raise it.
    pub by: Source,
}

/// Where a bound comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The container's memory limit, in bytes.
    Container(u64),
    /// The pod's annotation of this name.
    Annotation(&'static str),
    /// This setting of the node's policy.
    Policy(&'static str),
}

impl Limits {
    /// What all instances may have together in a container whose memory limit
    /// is `container` bytes by now; `None` is without bound.
    pub fn in_sum(&self, container: Option<u64>) -> Option<Cap> {
        let left = container.map(|limit| Cap {
            bytes: limit - head_room(limit),
            by: Source::Container(limit),
        });
        stricter(self.memory, left)
    }

    /// What a guest may hand to its host in one call, and ask of its random
    /// numbers, in bytes: half of what the container's limit leaves to the host.
    pub fn hostcall(&self) -> u64 {
        self.container.map_or(HOSTCALL_MOST, |limit| {
            (head_room(limit) / 2).clamp(HOSTCALL_LEAST, HOSTCALL_MOST)
        })
    }

    /// How many resources (open files, sockets, streams, requests) one
    /// instance may hold.
    pub fn resources(&self) -> u64 {
        self.container.map_or(RESOURCES_MOST, |limit| {
            (head_room(limit) / 2 / RESOURCE).clamp(RESOURCES_LEAST, RESOURCES_MOST)
        })
    }

    /// How many calls of 0.3, and what they are waited for by, one instance may
    /// have under way.
    pub fn calls(&self) -> u64 {
        self.container.map_or(CALLS_MOST, |limit| {
            (head_room(limit) / 2 / CALL).clamp(CALLS_LEAST, CALLS_MOST)
        })
    }
}

/// The smaller of two bounds, the first of equal ones.
pub(crate) fn stricter(one: Option<Cap>, other: Option<Cap>) -> Option<Cap> {
    match (one, other) {
        (Some(one), Some(other)) if other.bytes < one.bytes => Some(other),
        (Some(one), _) => Some(one),
        (None, other) => other,
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = Bytes(self.bytes);
        match self.by {
            Source::Container(limit) => write!(
                f,
                "{bytes}, which the container's memory limit of {} leaves when its host has \
                 had {}; a higher limit of the container raises it",
                Bytes(limit),
                Bytes(head_room(limit))
            ),
            Source::Annotation(key) => {
                write!(f, "{bytes} by the annotation {key}, which can be raised")
            }
            Source::Policy(setting) => write!(
                f,
                "{bytes} by the node's policy; its administrator can raise {setting}"
            ),
        }
    }
}

/// Bytes in words.
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(MIB) => write!(f, "{} MiB", bytes / MIB),
            bytes if bytes.is_multiple_of(KIB) => write!(f, "{} KiB", bytes / KIB),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// Parses an amount of memory as Kubernetes writes it: a whole number of
/// bytes, or of k, M, G (powers of 1000) or Ki, Mi, Gi (powers of 1024).
///
/// # Errors
/// What is wrong with it.
pub fn amount(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => KIB,
        "Mi" => MIB,
        "Gi" => 1 << 30,
        _ => 0,
    };
    digits
        .parse::<u64>()
        .ok()
        .filter(|_| unit > 0)
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "must be an amount of memory, such as 64Mi or 1Gi".into())
}

/// The annotation's bound, if it is there.
pub(crate) fn annotated(value: Option<&str>, key: &'static str) -> Result<Option<Cap>, String> {
    debug_assert!(key.starts_with(annotation::PREFIX));
    let bytes = value.map(amount).transpose()?;
    Ok(bytes.map(|bytes| Cap {
        bytes,
        by: Source::Annotation(key),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_leaves_its_host_some_room() {
        for (container, host) in [
            (0, 0),
            (MIB, MIB),
            (8 * MIB, 4 * MIB + MIB / 2),
            (32 * MIB, 6 * MIB),
            (128 * MIB, 12 * MIB),
            (1 << 30, 36 * MIB),
            (u64::MAX, 36 * MIB),
        ] {
            assert_eq!(head_room(container), host, "{container}");
        }
    }

    #[test]
    fn the_strictest_bound_counts_and_says_who_set_it() {
        let limits = |memory: Option<&str>| Limits {
            memory: annotated(memory, annotation::MEMORY_MAX).expect("valid"),
            ..Limits::default()
        };
        assert_eq!(limits(None).in_sum(None), None);
        let cap = limits(None).in_sum(Some(32 * MIB)).expect("bound");
        assert_eq!(cap.bytes, 26 * MIB);
        let text = cap.to_string();
        assert!(text.starts_with("26 MiB, which"), "{text}");
        assert!(text.contains("32 MiB leaves"), "{text}");
        let cap = limits(Some("8Mi")).in_sum(Some(32 * MIB)).expect("bound");
        assert!(cap.to_string().contains("io.wisp.memory.max"), "{cap}");
        // More than there is does not help.
        let cap = limits(Some("8Gi")).in_sum(Some(32 * MIB)).expect("bound");
        assert_eq!(cap.by, Source::Container(32 * MIB));
    }

    #[test]
    fn what_the_host_holds_for_a_guest_is_bounded() {
        let with = |container| Limits {
            container,
            ..Limits::default()
        };
        assert_eq!(with(None).hostcall(), HOSTCALL_MOST);
        assert_eq!(with(Some(32 * MIB)).hostcall(), 3 * MIB);
        assert_eq!(with(Some(1)).hostcall(), HOSTCALL_LEAST);
        assert_eq!(with(None).resources(), RESOURCES_MOST);
        assert_eq!(with(Some(32 * MIB)).resources(), 12_288);
        assert_eq!(with(Some(1)).resources(), RESOURCES_LEAST);
        assert_eq!(with(None).calls(), CALLS_MOST);
        assert_eq!(with(Some(32 * MIB)).calls(), 3072);
        assert_eq!(with(Some(1)).calls(), CALLS_LEAST);
    }

    #[test]
    fn amounts_are_kubernetes_quantities() {
        for (text, bytes) in [
            ("1", 1),
            (" 64Mi ", 64 * MIB),
            ("1Gi", 1 << 30),
            ("2k", 2000),
            ("3M", 3_000_000),
            ("4G", 4_000_000_000),
            ("5Ki", 5120),
        ] {
            assert_eq!(amount(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "0Mi",
            "-1",
            "1.5Gi",
            "64MiB",
            "64 Mi",
            "Mi",
            "1e3",
            "99999999999Gi",
            "٣",
        ] {
            assert!(amount(text).is_err(), "{text}");
        }
    }
}
