//! Seeded randomness: server choice, noise, fault probabilities, ids.
//!
//! Promise: the same seed and the same order of draws give the same values. Not for secrets that
//! must hold against anybody: this is a local stand-in. The generator is SplitMix64.

use uuid::Uuid;

#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_bits() % bound.max(1)
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub fn uuid(&mut self) -> Uuid {
        let bits = (u128::from(self.next_bits()) << 64) | u128::from(self.next_bits());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}
