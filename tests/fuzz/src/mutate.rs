//! Seeded damage, for the runs without a fuzzer. A failure repeats: seed and case are in its message.

/// A small xorshift generator.
pub struct Random(u64);

impl Random {
    /// A generator whose numbers depend on the seed alone.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }

    /// That many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}

/// Bytes that decoders treat specially, as numbers or as text.
const INTERESTING: &[u8] = b"\0\x01\x02\x7F\x80\xFF{}[]\"':,\\ ()=<>;";

/// An input made from two others: a bit, a byte, a number changed, a piece cut, repeated, inserted or taken
/// over from the other one, a few times.
pub fn mutated(original: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=random.below(4) {
        change(&mut bytes, other, random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let end = at + random.below(bytes.len().saturating_sub(at)).min(64);
    match random.below(8) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = INTERESTING[random.below(INTERESTING.len())],
        2 if !bytes.is_empty() => bytes[at] = random.number() as u8,
        3 => bytes.truncate(at),
        4 => {
            let count = random.below(16);
            bytes.splice(at..at, random.bytes(count));
        }
        5 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        6 => {
            let from = random.below(other.len());
            let count = random.below(64).min(other.len() - from);
            bytes.splice(at..end, other[from..from + count].iter().copied());
        }
        _ => drop(bytes.drain(at..end)),
    }
}
