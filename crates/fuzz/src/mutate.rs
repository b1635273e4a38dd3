//! Changes to inputs, the same for the same seed.

/// A generator of numbers: splitmix64.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        match end {
            0 => 0,
            end => usize::try_from(self.next() % (end as u64)).unwrap_or_default(),
        }
    }
}

/// Inputs do not grow beyond this, in bytes.
const LARGEST: usize = 64 << 10;

/// What parsers stumble over.
const TOKENS: [&[u8]; 26] = [
    b"\0",
    b"\n",
    b"\r",
    b",",
    b":",
    b"/",
    b"*",
    b"-",
    b"..",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"'",
    b"=",
    b"&a *a",
    b"\xff",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"18446744073709551616",
    b"-1",
    b"null",
    b"::ffff:",
    b"169.254.169.254",
    b"io.wisp.",
];

/// A change of `input`, or several, for which parts of `other` may be taken.
pub fn mutated(input: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        change(&mut bytes, other, numbers);
    }
    bytes.truncate(LARGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    let at = numbers.below(bytes.len() + 1);
    let length = numbers.below(32.min(bytes.len().saturating_sub(at)) + 1);
    let here = at..at + length;
    match numbers.below(9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << numbers.below(8);
            }
        }
        1 => {
            let token = TOKENS[numbers.below(TOKENS.len())];
            bytes.splice(at..at, token.iter().copied());
        }
        2 => {
            let token = TOKENS[numbers.below(TOKENS.len())];
            bytes.splice(here, token.iter().copied());
        }
        3 => drop(bytes.drain(here)),
        4 => bytes.truncate(at),
        // The same again, often enough to nest.
        5 => {
            let part = bytes[here].to_vec();
            let times = [2, 10, 1000][numbers.below(3)];
            if part.len() * times <= LARGEST {
                bytes.splice(at..at, part.repeat(times));
            }
        }
        6 => {
            let start = numbers.below(other.len());
            let end = (start + numbers.below(64)).min(other.len());
            bytes.splice(at..at, other[start..end].iter().copied());
        }
        7 => {
            let start = numbers.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[start..]);
        }
        _ => {
            // A digit becomes another, as lengths and ports are made of.
            if let Some(byte) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                *byte = b"0123456789"[numbers.below(10)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_changes_and_another_others() {
        let draw = |seed| -> Vec<Vec<u8>> {
            let mut numbers = Numbers::new(seed);
            let change = |_| mutated(b"tcp://10.0.0.0/8:80", b"https://*", &mut numbers);
            (0..50).map(change).collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let different = draw(1)
            .iter()
            .filter(|bytes| bytes.as_slice() != b"tcp://10.0.0.0/8:80")
            .count();
        assert!(different > 40, "{different}");
    }
}
