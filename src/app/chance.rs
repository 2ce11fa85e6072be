//! The one place where randomness comes from; the decisions that use it take it as an argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// A random number from the system. Where the system has none, numbers that are only all different: they spread load and name turns,
/// and guard nothing.
pub fn random() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    getrandom::u64().unwrap_or_else(|_| COUNT.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
}

/// A random number in 0..1.
pub fn fraction() -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits are a double's own precision"
    )]
    let top = (random() >> 11) as f64;
    top / (1_u64 << 53) as f64
}
