//! Choices that repeat: SplitMix64 from the seed, the area and the case.

/// A small generator, good enough to choose where to strike.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn of(seed: u64, area: &str, case: usize) -> Self {
        let text = area.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut random = Self(text.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(case as u64));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub(crate) fn of_list<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.between(0, list.len() as u64 - 1) as usize].clone()
    }
}
