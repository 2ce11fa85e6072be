//! Outage drills: faults injected between a provider's dialect and its socket, so that the real
//! breaker, retry policy and pages show how they react. `ops::drills` starts and stops drills; this
//! module has each provider's switch and the effect on calls.
//!
//! The demo's panel breaks a provider by the same means, see [`FaultSwitch::set_demo_fault`].
//!
//! A drill ends by itself even if nobody stops it, because every call checks the time. Nothing sent
//! with a call can start a drill. Visitors' calls, recovery probes and health checks are affected
//! alike.

mod events;
mod fault;
mod switch;
mod transport;

pub use fault::TOKENS_BEFORE_FAULT;
pub use switch::{ActiveDrill, DrillSpec, FaultSwitch};
pub use transport::FaultInjectingTransport;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests;
