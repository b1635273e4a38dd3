//! Which traces are recorded, as `OTEL_TRACES_SAMPLER` says.

use super::context::{SpanContext, TraceId};

/// What decides for a trace that begins here, and whether who has begun it
/// elsewhere decides for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    pub root: Root,
    /// `parentbased_…`
    pub by_parent: bool,
}

/// What decides by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Root {
    Always,
    Never,
    /// Of so many of 2^63 traces, by their ids: so that all who sample by a ratio
    /// choose the same ones.
    Below(u64),
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            root: Root::Always,
            by_parent: true,
        }
    }
}

impl Root {
    /// `ratio` is from 0 to 1.
    pub fn ratio(ratio: f64) -> Self {
        const ALL: f64 = (1u64 << 63) as f64;
        // It is at most 2^63, which is a whole number of both kinds.
        Self::Below((ratio * ALL) as u64)
    }

    fn takes(self, trace: TraceId) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Below(bound) => {
                // The last eight bytes, as other implementations have it.
                (u128::from_be_bytes(trace.0) as u64) >> 1 < bound
            }
        }
    }
}

impl Sampler {
    /// Whether to record a span of `trace` whose parent is `parent`.
    pub fn takes(&self, trace: TraceId, parent: Option<&SpanContext>) -> bool {
        match parent {
            Some(parent) if self.by_parent => parent.sampled,
            _ => self.root.takes(trace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::SpanId;
    use super::*;

    fn trace(last: u64) -> TraceId {
        TraceId((u128::from(last) | 1 << 127).to_be_bytes())
    }

    fn parent(sampled: bool) -> SpanContext {
        SpanContext {
            trace: trace(u64::MAX),
            span: SpanId([1; 8]),
            sampled,
        }
    }

    #[test]
    fn parents_decide_where_they_are_asked() {
        for root in [Root::Always, Root::Never, Root::ratio(0.5)] {
            for sampled in [true, false] {
                let parent = parent(sampled);
                let takes =
                    |by_parent| Sampler { root, by_parent }.takes(parent.trace, Some(&parent));
                assert_eq!(takes(true), sampled);
                assert_eq!(takes(false), root == Root::Always);
            }
        }
        assert!(Sampler::default().takes(trace(0), None));
    }

    #[test]
    fn a_ratio_takes_that_part_of_the_ids() {
        for (ratio, last, taken) in [
            (0.0, 0, false),
            (1.0, u64::MAX, true),
            (0.5, u64::MAX / 2, true),
            (0.5, u64::MAX / 2 + 1, false),
            (0.25, 1 << 61, true),
            (0.25, 1 << 62, false),
        ] {
            assert_eq!(
                Root::ratio(ratio).takes(trace(last)),
                taken,
                "{ratio} {last}"
            );
        }
    }
}
