//! The only source of random numbers. Code that needs them receives a function as argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// A random number from the operating system.
///
/// Without a system source the numbers are only distinct. They name turns and spread load, so they
/// need not be unpredictable.
pub fn random_u64() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    getrandom::u64().unwrap_or_else(|_| COUNT.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
}

/// A random number from 0 (included) to 1 (excluded).
pub fn random_unit() -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "an f64 represents 53 bits exactly"
    )]
    let bits = (random_u64() >> 11) as f64;
    bits / (1_u64 << 53) as f64
}
