//! Reproducible random choices: everything follows from the seed.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone)]
pub struct SeededRandom(u64);

impl SeededRandom {
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns an independent generator.
    pub fn split(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns a number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    /// Returns `true` once in `count` times, on average.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Returns one of `items`.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Returns a duration between `min` and `max` milliseconds.
    pub fn between(&mut self, min: usize, max: usize) -> Duration {
        Duration::from_millis((min + self.below(max - min + 1)) as u64)
    }

    /// Returns a pause that is usually short, and sometimes longer than the time limits.
    pub fn pause(&mut self) -> Duration {
        match self.below(12) {
            0 => self.between(8_000, 40_000),
            1 | 2 => self.between(400, 8_000),
            _ => self.between(0, 400),
        }
    }
}
