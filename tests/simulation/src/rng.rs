//! Numbers that a seed decides.

/// A stream of numbers (SplitMix64). Each part of a simulation has a stream of its own, so that a change in
/// one does not shift what the others draw.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of that name under a seed.
    pub fn new(seed: u64, stream: &str) -> Self {
        let name = u64::from(crc32fast::hash(stream.as_bytes()));
        let mut rng = Rng(seed ^ name << 32 ^ name);
        rng.draw();
        rng
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}
