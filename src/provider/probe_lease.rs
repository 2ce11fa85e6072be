//! Permission to probe a failed provider: of the instances that share it, one probes at a time.

use std::time::Duration;

use futures_util::future::BoxFuture;

/// Hands out probe leases. While Redis is unavailable, every lease is granted at once, and each
/// instance probes alone.
pub trait ProbeCoordinator: Send + Sync {
    /// Requests a lease for one probe that takes at most `timeout`. Answers within 50 ms.
    fn request_lease(&self, timeout: Duration) -> BoxFuture<'static, ProbeLeaseResult>;
}

pub enum ProbeLeaseResult {
    /// Probe, then release the lease with [`ProbeLease::release`].
    Granted(Box<dyn ProbeLease>),
    /// Another instance is probing or has just probed: ask again after this time.
    HeldElsewhere(Duration),
}

/// A held lease. If dropped without a release, it expires a little after the requested timeout.
pub trait ProbeLease: Send {
    /// Ends the probe. No other instance gets a lease for this time.
    fn release(self: Box<Self>, rest: Duration);
}
